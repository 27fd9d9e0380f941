// SPDX-License-Identifier: Apache-2.0
// Every generated int8 kernel against the reference of matmul_q, bit for bit: the arithmetic of quant/format.h is
// exact.
#include <gtest/gtest.h>

#include <set>

#include "jit/jit.h"
#include "jit/microkernel.h"
#include "tensor/op.h"
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
  std::vector<int64_t> n;  ///< of the weights
  int64_t m, k;
  Codes codes = Codes::random;
  Attrs attrs = {};
  int threads = 1;
  int64_t out_gap = 3;  ///< floats between the rows of the result
};

class Matmul : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    register_kernels();
    const Isa isa = GetParam();
    if (static_cast<int>(isa) > static_cast<int>(max_isa())) GTEST_SKIP() << name(isa) << " is above the cap";
    if (!supported(isa)) emulator::install();
    emulated_ = !supported(isa) && isa != Isa::amxint8;  // a tile instruction does much: little to emulate
  }
  /// Emulated runs are slow and there the arithmetic is what counts: a smaller selection.
  bool emulated_ = false;

  std::string kernel_name() const { return "matmul_q_" + std::string(name(GetParam())); }

  static const MicroKernel& kernel() {
    return **std::ranges::find(microkernels(), GetParam(), &MicroKernel::isa);
  }
  /// Those that the instruction set has kernels for: int16 activations have no AMX form.
  static std::vector<const QuantFormat*> formats() {
    std::vector<const QuantFormat*> list;
    for (const QuantFormat* f : quant::all_formats()) {
      if (!f->layout.bits) continue;
      const bool words = quant::act_needs(f->layout).bits == 16;
      const char* reason = kernel().rejects(f->layout);
      EXPECT_EQ(reason != nullptr, words && GetParam() == Isa::amxint8)
          << f->name << ": " << (reason ? reason : "accepted");
      if (!reason) list.push_back(f);
    }
    return list;
  }
  static bool fits(const QuantLayout& w, int64_t k) {
    if (w.group == 0) return true;
    return k % (w.group * std::max<int>(1, w.sub_groups)) == 0;
  }

  struct Inputs {
    std::vector<GuardedTensor> owned;
    std::vector<Tensor> in;
  };
  Inputs make_inputs(const QuantFormat& format, const Case& c, test::Random& random) {
    Inputs inputs;
    inputs.owned.push_back(packed_activations(format.layout, c.m, c.k, c.codes, random));
    int64_t columns = 0;
    for (int64_t n : c.n) {
      inputs.owned.push_back(packed_weight(format, n, c.k, c.codes, random));
      columns += n;
    }
    if (c.attrs.i("bias", 0)) inputs.owned.push_back(floats({columns}, random));
    const int64_t width = c.attrs.s("gate", "").empty() ? columns : c.n[0];
    if (c.attrs.i("residual", 0)) inputs.owned.push_back(floats({c.m, width}, random));
    for (const GuardedTensor& t : inputs.owned) inputs.in.push_back(t.tensor);
    return inputs;
  }
  static GuardedTensor floats(const Shape& shape, test::Random& random) {
    GuardedTensor t{std::make_shared<test::Guarded>(static_cast<size_t>(shape.elements()) * 4), {}};
    t.tensor = Tensor({shape, DType::f32, nullptr}, t.memory->data());
    for (int64_t i = 0; i < shape.elements(); ++i) t.tensor.as<float>()[i] = random.uniform();
    return t;
  }

  std::vector<float> run(const Inputs& inputs, const Case& c) {
    const TensorDesc desc = op("matmul_q").infer(descs(inputs), c.attrs);
    const int64_t width = desc.shape[1], stride = width + c.out_gap;
    test::Guarded memory(static_cast<size_t>((c.m - 1) * stride + width) * 4);
    Tensor out(desc, memory.data());
    out.strides = {stride, 1};
    test::KernelRunner runner("matmul_q", kernel_name(), inputs.in, desc, c.attrs, c.threads, 1, 1 + c.n.size());
    const bool few = c.m <= kernel().packed_limit(inputs.in[1].desc.format->layout);
    EXPECT_TRUE(runner.detail().ends_with(message('_', name(few ? kernel().packed_isa : GetParam()))))
        << runner.detail();
    ThreadPool pool(c.threads);
    std::vector<std::byte> before(memory.data(), memory.data() + memory.size());
    runner.run(pool, inputs.in, out);
    std::vector<float> result;
    for (int64_t i = 0; i < c.m; ++i) {
      for (int64_t j = 0; j < width; ++j) result.push_back(out.as<float>()[i * stride + j]);
      if (i + 1 == c.m) break;
      const size_t gap = static_cast<size_t>(i * stride + width) * 4, bytes = static_cast<size_t>(c.out_gap) * 4;
      EXPECT_EQ(std::memcmp(memory.data() + gap, before.data() + gap, bytes), 0) << "gap written in row " << i;
    }
    return result;
  }
  static std::vector<TensorDesc> descs(const Inputs& inputs) {
    std::vector<TensorDesc> list;
    for (const Tensor& t : inputs.in) list.push_back(t.desc);
    return list;
  }
  std::vector<float> reference(const Inputs& inputs, const Case& c) {
    return test::run_reference("matmul_q", inputs.in, c.attrs).floats();
  }
  static std::string text(const QuantFormat& format, const Case& c) {
    return message(format.name, " m ", c.m, " n ", c.n[0], " k ", c.k, c.codes == Codes::extreme ? " extreme" : "");
  }
  void expect_exact(const QuantFormat& format, const Case& c) {
    test::Random random(static_cast<uint64_t>(c.m * 1000 + c.k + c.n[0]));
    const Inputs inputs = make_inputs(format, c, random);
    EXPECT_TRUE(test::same_bits(run(inputs, c), reference(inputs, c), text(format, c), random.seed()));
    EXPECT_EQ(emulator::threads_with_tiles(), 0) << text(format, c) << ": tiles were not released";
  }
};

TEST_P(Matmul, MatchesReferenceForEveryFormat) {
  for (const QuantFormat* format : formats()) {
    int shapes = 0;
    for (int64_t k : {32, 48, 64, 128, 160, 256, 576, 4096}) {
      if (!fits(format->layout, k)) continue;
      if (++shapes > 3 && emulated_) break;
      for (int64_t m : {1, 2, 3, 4, 5, 6, 13, 16}) {
        if (emulated_ && (m == 2 || m == 3 || m == 5 || (k > 256 && m > 1))) continue;
        if (k == 4096 && m > 5) continue;
        expect_exact(*format, {.n = std::vector<int64_t>{k == 4096 ? 16 : m + 34}, .m = m, .k = k});
      }
    }
  }
}

TEST_P(Matmul, SurvivesExtremes) {
  for (const QuantFormat* format : formats()) {
    const QuantLayout& w = format->layout;
    const int64_t k = std::max<int64_t>({w.group, w.group * w.sub_groups, 128});
    for (int64_t m : {1, 7, 9}) expect_exact(*format, {.n = {int64_t{16}}, .m = m, .k = k, .codes = Codes::extreme});
  }
}

TEST_P(Matmul, MasksEveryTailOfColumns) {
  const QuantFormat& format = quant::find_format("q4s_g32");
  for (int64_t n = 1; n <= 49; n += emulated_ ? 11 : 1) {
    for (int64_t m : {1, 5, 9}) expect_exact(format, {.n = {n}, .m = m, .k = 64});
  }
}

// Totals wait between blocks of k; the last record is not whole.
TEST_P(Matmul, AddsBlocksOfK) {
  const std::pair<const char*, int64_t> cases[] = {{"q4s_g16", 1168},      {"q4s_g32", 1184}, {"q4z_g32", 1184},
                                                   {"q2z_g16_bf16", 1168}, {"q4s_g64", 1216}, {"q4s_g128", 1280},
                                                   {"q4s_row", 1184},      {"nf4_g64", 1216}};
  for (const auto& [name, k] : cases) expect_exact(quant::find_format(name), {.n = {24}, .m = 9, .k = k});
}

TEST_P(Matmul, AnyNumberOfRowsMakesTiles) {
  for (int64_t m = 8; m <= (emulated_ ? 14 : 40); ++m) {
    expect_exact(quant::find_format("q4s_g32"), {.n = {40}, .m = m, .k = 160});
    expect_exact(quant::find_format("q4z_g128"), {.n = {16}, .m = m, .k = 256});
  }
}

TEST_P(Matmul, JoinsWeights) {
  const QuantFormat& format = quant::find_format("q4s_g32");
  for (int64_t m : {1, 9}) {
    expect_exact(format, {.n = {40, 16, 7}, .m = m, .k = 96, .attrs = {{"weights", 3}}});
  }
}

TEST_P(Matmul, SameBitsForAnyThreadsAndRows) {
  for (std::string_view name : {"q4s_g32", "q4z_g32"}) {
    const QuantFormat& format = quant::find_format(name);
    const int64_t k = emulated_ ? 160 : 2208, n = emulated_ ? 70 : 200, max_m = emulated_ ? 9 : 17;
    test::Random random(7);
    Case c{.n = {n}, .m = max_m, .k = k, .threads = 1};
    const Inputs all = make_inputs(format, c, random);
    const std::vector<float> want = run(all, c);
    for (int threads : {2, 3}) {
      c.threads = threads;
      EXPECT_TRUE(test::same_bits(run(all, c), want, message(name, " threads ", threads)));
    }
    // Rows again, fewer at a time: the same activations requantised give the same bytes.
    for (int64_t m = 1; m < max_m; m += emulated_ ? 4 : 1) {
      test::Random again(7);
      Case fewer{.n = {n}, .m = m, .k = k, .threads = 2};
      Inputs some = make_inputs(format, fewer, again);
      some.in[1] = all.in[1];
      const std::vector<float> head(want.begin(), want.begin() + m * n);
      EXPECT_TRUE(test::same_bits(run(some, fewer), head, message(name, " rows ", m)));
    }
  }
}

TEST_P(Matmul, AddsBiasAndResidualExactly) {
  const QuantFormat& format = quant::find_format("q4s_g32");
  for (int64_t m : {1, 6}) {
    for (int64_t n : {16, 37}) {
      const Attrs attrs = {{"bias", 1}, {"residual", 1}};
      expect_exact(format, {.n = {n}, .m = m, .k = 128, .attrs = attrs});
    }
  }
}

// Functions are within a few units in the last place of values of about 1; gates multiply two such values.
TEST_P(Matmul, AppliesActivationsAndGates) {
  const QuantFormat& format = quant::find_format("q4s_g32");
  for (const char* kind : {"activation", "gate"}) {
    for (const char* function : {"silu", "gelu", "gelu_tanh", "relu"}) {
      for (int64_t m : {1, 6}) {
        Case c{.n = {37}, .m = m, .k = 128, .attrs = {{"bias", 1}, {kind, function}}};
        if (c.attrs.s("gate", "") != "") {
          c.n.push_back(37);
          c.attrs.set("weights", int64_t{2});
        }
        test::Random random(11);
        const Inputs inputs = make_inputs(format, c, random);
        const std::vector<float> got = run(inputs, c), want = reference(inputs, c);
        const double bound = 16 * test::f32_epsilon * std::max(1.0, test::max_abs(want));
        EXPECT_TRUE(test::close(got, want, bound, message(kind, ' ', function)));
      }
    }
  }
}

TEST_P(Matmul, WorkersReadDifferentPanelsFirst) {
  const QuantFormat& format = quant::find_format("q4s_g32");
  test::Random random(3);
  const Case c{.n = {320, 320}, .m = 1, .k = 64, .attrs = {{"weights", 2}, {"gate", "silu"}}, .threads = 2};
  const Inputs inputs = make_inputs(format, c, random);
  const TensorDesc desc = op("matmul_q").infer(descs(inputs), c.attrs);
  const test::KernelRunner runner("matmul_q", kernel_name(), inputs.in, desc, c.attrs, c.threads, 1, 3);
  std::set<const std::byte*> seen;
  for (int worker = 0; worker < 2; ++worker) {
    int piece = 0;
    for (;; ++piece) {
      const std::span<const std::byte> bytes = runner.reads_first(inputs.in, Tensor(desc, nullptr), worker, piece);
      if (bytes.empty()) break;
      const Tensor& weight = inputs.in[static_cast<size_t>(1 + piece % 2)];  // the streams of a gate take turns
      EXPECT_GE(bytes.data(), weight.data);
      EXPECT_LE(bytes.data() + bytes.size(), weight.data + nibble::bytes(weight.desc));
      EXPECT_TRUE(seen.insert(bytes.data()).second) << "worker " << worker << " piece " << piece;
    }
    EXPECT_GT(piece, 1);
  }
}

TEST_P(Matmul, NamesAreUniqueAndEmit) {
  const std::vector<std::string> names = list_kernels(GetParam());
  EXPECT_GT(names.size(), 100u);
  for (const std::string& n : names) {
    EXPECT_TRUE(n.ends_with("_" + std::string(name(GetParam())))) << n;
    EXPECT_FALSE(emit_kernel(n).empty()) << n;
  }
  EXPECT_THROW(emit_kernel("gemm_i8_nothing"), Error);
}

INSTANTIATE_TEST_SUITE_P(Isas, Matmul, testing::Values(Isa::avx2, Isa::avxvnni, Isa::avx512vnni, Isa::amxint8),
                         [](const auto& instance) { return std::string(name(instance.param)); });

}  // namespace
}  // namespace nibble::jit
