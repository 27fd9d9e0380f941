// SPDX-License-Identifier: Apache-2.0
// The kernels of matmul_experts and matmul_experts_q against their references, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "jit/jit.h"
#include "tensor/op.h"
#include "tests/jit/kernel_runner.h"
#include "tests/jit/packed_weight.h"
#include "tests/support/compare.h"
#include "tests/support/emulator.h"
#include "tests/support/test_tensor.h"

namespace nibble::jit {
namespace {

using test::GuardedTensor;

struct Case {
  int64_t m, n, k;
  int64_t experts = 5, chosen = 2;
  bool grouped = false, bias = false;
  std::string gate = "";
  int favourite = -1;  ///< an expert that every row chooses
  int threads = 1;
};

class MatmulExperts : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    register_kernels();
    const Isa isa = GetParam();
    if (static_cast<int>(isa) > static_cast<int>(max_isa())) GTEST_SKIP() << name(isa) << " is above the cap";
    if (!supported(isa)) emulator::install();
    emulated_ = !supported(isa);
  }
  bool emulated_ = false;

  struct Inputs {
    std::vector<GuardedTensor> owned;
    std::vector<test::TestTensor> small;
    std::vector<Tensor> in;
    Attrs attrs;
  };
  static test::TestTensor groups(const Case& c, test::Random& random) {
    std::vector<int32_t> chosen;
    for (int64_t i = 0; i < c.m; ++i) {
      std::vector<int32_t> all(static_cast<size_t>(c.experts));
      std::iota(all.begin(), all.end(), 0);
      if (c.favourite >= 0) std::swap(all[0], all[static_cast<size_t>(c.favourite)]);
      for (int64_t j = 0; j < c.chosen; ++j) {
        if (j > 0 || c.favourite < 0)
          std::swap(all[static_cast<size_t>(j)], all[static_cast<size_t>(random.integer(j, c.experts - 1))]);
        chosen.push_back(all[static_cast<size_t>(j)]);
      }
    }
    const test::TestTensor ids({c.m, c.chosen}, chosen);
    return test::run_reference("group_experts", {ids.tensor()}, {{"experts", c.experts}});
  }
  Inputs make_inputs(const QuantFormat& format, const Case& c, test::Random& random) {
    Inputs inputs;
    const int64_t rows = c.grouped ? c.m * c.chosen : c.m;
    if (format.layout.bits) {
      inputs.owned.push_back(packed_activations(format.layout, rows, c.k, test::Codes::random, random));
      inputs.in.push_back(inputs.owned.back().tensor);
    } else {
      inputs.small.emplace_back(Shape{rows, c.k}, DType::f32, random.floats(rows * c.k));
      inputs.in.push_back(inputs.small.back());
    }
    for (int w = 0; w < (c.gate.empty() ? 1 : 2); ++w) {
      inputs.owned.push_back(weight(format, c.experts * ((c.n + 15) / 16 * 16), c.k, random));
      inputs.in.push_back(inputs.owned.back().tensor);
    }
    inputs.small.push_back(groups(c, random));
    inputs.in.push_back(inputs.small.back());
    if (c.bias) {
      inputs.small.emplace_back(Shape{c.experts, c.n}, DType::f32, random.floats(c.experts * c.n));
      inputs.in.push_back(inputs.small.back());
    }
    inputs.attrs = {{"experts", c.experts},
                    {"n", c.n},
                    {"chosen", c.chosen},
                    {"grouped", int64_t{c.grouped}},
                    {"bias", int64_t{c.bias}}};
    if (!c.gate.empty()) inputs.attrs.set("gate", c.gate);
    return inputs;
  }
  static GuardedTensor weight(const QuantFormat& format, int64_t n, int64_t k, test::Random& random) {
    if (format.layout.bits) return packed_weight(format, n, k, test::Codes::random, random);
    const quant::PanelGeometry g = quant::panel_geometry(format.layout, n, k);
    GuardedTensor out{std::make_shared<test::Guarded>(g.bytes(), test::Flush::end, 64), {}};
    out.tensor = Tensor({{n, k}, DType::packed, &format}, out.memory->data());
    const size_t element = element_bytes(format.layout.scale);
    for (size_t i = 0; i < g.bytes(); i += element)
      test::write_scale(format.layout.scale, out.tensor.data + i, random.uniform());
    return out;
  }
  std::string op_name(const QuantFormat& format) const {
    return format.layout.bits ? "matmul_experts_q" : "matmul_experts";
  }
  std::string kernel_name(const QuantFormat& format) const {
    if (format.layout.bits) return "matmul_experts_q_" + std::string(name(GetParam()));
    return GetParam() == Isa::avx2 ? "matmul_experts_float_avx2" : "matmul_experts_float_avx512";
  }
  std::vector<float> run(const QuantFormat& format, const Inputs& inputs, const Case& c) {
    const TensorDesc desc{{c.m * c.chosen, c.n}, DType::f32, nullptr};
    test::Guarded memory(static_cast<size_t>(desc.shape.elements()) * 4);
    test::KernelRunner runner(op_name(format), kernel_name(format), inputs.in, desc, inputs.attrs, c.threads, 1,
                              c.gate.empty() ? 2 : 3);
    ThreadPool pool(c.threads);
    const Tensor out(desc, memory.data());
    runner.run(pool, inputs.in, out);
    return {out.as<float>(), out.as<float>() + desc.shape.elements()};
  }
  std::vector<float> reference(const QuantFormat& format, const Inputs& inputs) {
    return test::run_reference(op_name(format), inputs.in, inputs.attrs).floats();
  }
  void expect_exact(const QuantFormat& format, const Case& c) {
    test::Random random(static_cast<uint64_t>(c.m * 1000 + c.k + c.n));
    const Inputs inputs = make_inputs(format, c, random);
    EXPECT_TRUE(test::same_bits(run(format, inputs, c), reference(format, inputs),
                                message(format.name, " m ", c.m, " n ", c.n, " k ", c.k), random.seed()));
  }
};

TEST_P(MatmulExperts, MatchesReferenceForEveryFormat) {
  for (const QuantFormat* format : quant::all_formats()) {
    const QuantLayout& w = format->layout;
    if (!w.bits && GetParam() == Isa::avxvnni) continue;
    const int64_t k = w.bits ? std::max<int64_t>({96, w.group, w.group * w.sub_groups}) /
                                   std::max<int64_t>(w.group, 32) * std::max<int64_t>(w.group, 32)
                             : 70;
    for (int64_t m : {1, 3, 20}) {
      if (emulated_ && m == 20) continue;
      expect_exact(*format, {.m = m, .n = 37, .k = k, .threads = m == 3 ? 2 : 1});
    }
  }
}

TEST_P(MatmulExperts, ManyRowsOfFewExpertsAndFewOfMany) {
  for (std::string_view format_name : {"q4s_g32", "f16"}) {
    const QuantFormat& format = quant::find_format(format_name);
    if (!format.layout.bits && GetParam() == Isa::avxvnni) continue;
    for (bool grouped : {false, true}) {
      expect_exact(format, {.m = 40, .n = 50, .k = 64, .experts = 3, .grouped = grouped, .favourite = 1, .threads = 2});
      if (emulated_) continue;
      expect_exact(
          format,
          {.m = 560, .n = 20, .k = 1312, .experts = 2, .chosen = 1, .grouped = grouped, .favourite = 1, .threads = 2});
      expect_exact(format, {.m = 5, .n = 130, .k = 64, .experts = 200, .chosen = 7, .grouped = grouped, .threads = 3});
      expect_exact(
          format,
          {.m = 60, .n = 16, .k = 32, .experts = 17, .chosen = 17, .grouped = grouped, .bias = true, .threads = 2});
    }
  }
}

TEST_P(MatmulExperts, AddsEachExpertsBias) {
  expect_exact(quant::find_format("q4s_g32"), {.m = 9, .n = 37, .k = 64, .bias = true});
  if (GetParam() != Isa::avxvnni) expect_exact(quant::find_format("bf16"), {.m = 9, .n = 37, .k = 64, .bias = true});
}

// As in Matmul.AppliesActivationsAndGates.
TEST_P(MatmulExperts, AppliesGates) {
  for (std::string_view format_name : {"q4s_g32", "f32"}) {
    const QuantFormat& format = quant::find_format(format_name);
    if (!format.layout.bits && GetParam() == Isa::avxvnni) continue;
    for (int64_t m : {1, 30}) {
      const Case c{.m = m, .n = 37, .k = 128, .gate = "silu"};
      test::Random random(11);
      const Inputs inputs = make_inputs(format, c, random);
      const std::vector<float> got = run(format, inputs, c), want = reference(format, inputs);
      EXPECT_TRUE(test::close(got, want,
                              (format.layout.bits ? 16 : 128) * test::f32_epsilon * std::max(1.0, test::max_abs(want)),
                              message(format_name, " m ", m)));
    }
  }
}

TEST_P(MatmulExperts, SameBitsForAnyThreads) {
  const QuantFormat& format = quant::find_format("q4z_g32");
  for (int64_t m : {1, 50}) {
    Case c{.m = m, .n = emulated_ ? 70 : 300, .k = 160, .experts = 8, .chosen = 3};
    test::Random random(7);
    const Inputs inputs = make_inputs(format, c, random);
    const std::vector<float> want = run(format, inputs, c);
    for (int threads : {2, 3}) {
      c.threads = threads;
      EXPECT_TRUE(test::same_bits(run(format, inputs, c), want, message("m ", m, " threads ", threads)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, MatmulExperts, testing::Values(Isa::avx2, Isa::avxvnni, Isa::avx512vnni),
                         [](const auto& instance) { return std::string(name(instance.param)); });

}  // namespace
}  // namespace nibble::jit
