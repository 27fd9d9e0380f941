// SPDX-License-Identifier: Apache-2.0
// Finishing inside a kernel against the same steps one by one: plain matmuls, then bias, function, gate and residual.
#include <gtest/gtest.h>

#include "jit/epilogue.h"
#include "jit/jit.h"
#include "quant/format.h"
#include "tensor/dtype.h"
#include "tests/jit/kernel_runner.h"
#include "tests/jit/packed_weight.h"
#include "tests/support/compare.h"
#include "tests/support/emulator.h"
#include "tests/support/test_tensor.h"

namespace nibble::jit {
namespace {

using test::Codes;
using test::GuardedTensor;

struct Case {
  std::string function;
  bool gate = false, bias = false;
  int residual = -1;  ///< a DType, or none
  int64_t m = 1, n = 1, k = 64;
  std::string_view format = "q4s_g32";
};
std::string text(const Case& c) {
  return message(c.format, ' ', c.function, c.gate ? " gate" : "", c.bias ? " bias" : "", " residual ", c.residual,
                 " m ", c.m, " n ", c.n, " k ", c.k);
}

class EpilogueOf : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    register_kernels();
    const Isa isa = GetParam();
    if (static_cast<int>(isa) > static_cast<int>(max_isa())) GTEST_SKIP() << name(isa) << " is above the cap";
    if (!supported(isa)) emulator::install();
    emulated_ = !supported(isa) && isa != Isa::amxint8;  // a tile instruction does much: little to emulate
  }
  bool emulated_ = false;

  static GuardedTensor values(const Shape& shape, DType type, test::Random& random) {
    const size_t bytes = static_cast<size_t>(shape.elements()) * element_bytes(type);
    GuardedTensor t{std::make_shared<test::Guarded>(bytes), {}};
    t.tensor = Tensor({shape, type, nullptr}, t.memory->data());
    for (int64_t i = 0; i < shape.elements(); ++i) {
      // Wide enough for every branch of the functions.
      const float x = 6 * random.uniform();
      if (type == DType::f32) t.tensor.as<float>()[i] = x;
      if (type == DType::f16) t.tensor.as<uint16_t>()[i] = f32_to_f16(x);
      if (type == DType::bf16) t.tensor.as<uint16_t>()[i] = f32_to_bf16(x);
    }
    return t;
  }
  static float value(const Tensor& t, int64_t i) {
    if (t.desc.dtype == DType::f32) return t.as<float>()[i];
    return t.desc.dtype == DType::f16 ? f16_to_f32(t.as<uint16_t>()[i]) : bf16_to_f32(t.as<uint16_t>()[i]);
  }

  std::vector<float> matmul(std::span<const Tensor> in, const Attrs& attrs, int64_t m, int64_t n) const {
    const TensorDesc desc{{m, n}, DType::f32, nullptr};
    const test::Guarded memory(static_cast<size_t>(m * n) * 4);
    const Tensor out(desc, memory.data());
    const auto weights = static_cast<size_t>(attrs.i("weights", 1));
    test::KernelRunner runner("matmul_q", "matmul_q_" + std::string(name(GetParam())), in, desc, attrs, 1, 1,
                              1 + weights);
    ThreadPool pool(1);
    runner.run(pool, in, out);
    return {out.as<float>(), out.as<float>() + m * n};
  }
  static void apply(const std::string& function, std::vector<float>& x) {
    if (function.empty()) return;
    const TensorDesc desc{{static_cast<int64_t>(x.size())}, DType::f32, nullptr};
    const Tensor t(desc, reinterpret_cast<std::byte*>(x.data()));
    test::KernelRunner runner(function, function + "_avx2", {&t, 1}, desc, {}, 1);
    ThreadPool pool(1);
    runner.run(pool, {&t, 1}, t);
  }

  void expect_same(const Case& c) {
    test::Random random(static_cast<uint64_t>(c.m * 100 + c.n));
    const QuantLayout& layout = quant::find_format(c.format).layout;
    std::vector<GuardedTensor> owned = {packed_activations(layout, c.m, c.k, Codes::random, random)};
    for (int w = 0; w < (c.gate ? 2 : 1); ++w) {
      owned.push_back(packed_weight(quant::find_format(c.format), c.n, c.k, Codes::random, random));
    }
    Attrs attrs;
    if (c.gate) attrs.set("weights", int64_t{2});
    if (!c.function.empty()) attrs.set(c.gate ? "gate" : "activation", c.function);
    std::vector<std::vector<float>> sums;
    for (size_t w = 1; w < owned.size(); ++w)
      sums.push_back(matmul(std::vector{owned[0].tensor, owned[w].tensor}, {}, c.m, c.n));
    if (c.bias) {
      attrs.set("bias", int64_t{1});
      owned.push_back(values({c.n * static_cast<int64_t>(sums.size())}, DType::f32, random));
      for (size_t w = 0; w < sums.size(); ++w) {
        for (int64_t i = 0; i < c.m * c.n; ++i) {
          sums[w][static_cast<size_t>(i)] += value(owned.back().tensor, static_cast<int64_t>(w) * c.n + i % c.n);
        }
      }
    }
    std::vector<float> want = sums[0];
    apply(c.function, want);
    for (size_t i = 0; c.gate && i < want.size(); ++i) want[i] *= sums[1][i];
    if (c.residual >= 0) {
      attrs.set("residual", int64_t{1});
      owned.push_back(values({c.m, c.n}, static_cast<DType>(c.residual), random));
      for (int64_t i = 0; i < c.m * c.n; ++i) want[static_cast<size_t>(i)] += value(owned.back().tensor, i);
    }
    std::vector<Tensor> in;
    for (const GuardedTensor& t : owned) in.push_back(t.tensor);
    EXPECT_TRUE(test::same_bits(matmul(in, attrs, c.m, c.n), want, text(c)));
  }
};

TEST_P(EpilogueOf, EqualsItsStepsOverEveryTailOfColumns) {
  for (int64_t n = 1; n <= 49; n += emulated_ ? 11 : 1) {
    for (const int64_t m : {1, 2, 3, 4, 33}) {
      if (emulated_ && m != 1 && m != 33) continue;
      expect_same(
          {.function = "silu", .gate = true, .bias = true, .residual = static_cast<int>(DType::bf16), .m = m, .n = n});
      expect_same({.function = "", .residual = static_cast<int>(DType::f16), .m = m, .n = n});
    }
  }
}

TEST_P(EpilogueOf, EqualsItsStepsForEveryFunctionAndResidual) {
  for (const char* function : {"", "silu", "gelu", "gelu_tanh", "relu"}) {
    for (const bool gate : {false, true}) {
      if (gate && !*function) continue;
      for (const int residual :
           {-1, static_cast<int>(DType::f32), static_cast<int>(DType::f16), static_cast<int>(DType::bf16)}) {
        for (const int64_t m : {1, 2, 3, 4, 35}) {
          if (emulated_ && m != 3 && (m != 35 || residual > 0)) continue;
          for (const bool bias : {false, true}) {
            expect_same({.function = function, .gate = gate, .bias = bias, .residual = residual, .m = m, .n = 40});
          }
        }
      }
    }
  }
}

// Totals of these leave few registers, or wait for the last block of k.
TEST_P(EpilogueOf, EqualsItsStepsWhereverTotalsAre) {
  for (const std::string_view format : {"q4z_g32", "q6s_g16x16", "q8s_g32"}) {
    if (format == "q8s_g32" && GetParam() == Isa::amxint8) continue;  // int16 activations have no AMX form
    for (const int64_t m : {1, 2, 3, 4, 40}) {
      if (emulated_ && m > 2) continue;
      for (const char* function : {"gelu", "gelu_tanh"}) {
        expect_same({.function = function,
                     .gate = true,
                     .bias = true,
                     .residual = static_cast<int>(DType::f32),
                     .m = m,
                     .n = 23,
                     .k = emulated_ ? 256 : 1536,
                     .format = format});
      }
    }
  }
}

TEST_P(EpilogueOf, NamesItsKernel) {
  EXPECT_EQ(name(Epilogue{}), "");
  EXPECT_EQ(name(Epilogue{Function::silu, 1, 1, static_cast<uint8_t>(1 + static_cast<int>(DType::f16))}),
            "_bias_silu_gate_residual_f16");
  const std::string isa = "_" + std::string(name(GetParam()));
  const std::string base = std::string("gemm_i8_") + (GetParam() == Isa::amxint8 ? "p" : "q") + "4s_g32_f32_1x16x4";
  EXPECT_FALSE(emit_kernel(base + "_gelu_residual" + isa).empty());
  EXPECT_THROW(emit_kernel(base + "_residual_gelu" + isa), Error);
}

INSTANTIATE_TEST_SUITE_P(Isas, EpilogueOf, testing::Values(Isa::avx2, Isa::avxvnni, Isa::avx512vnni, Isa::amxint8),
                         [](const auto& instance) { return std::string(name(instance.param)); });

}  // namespace
}  // namespace nibble::jit
