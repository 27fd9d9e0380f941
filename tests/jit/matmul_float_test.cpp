// SPDX-License-Identifier: Apache-2.0
// Float panels against the op's reference, which sums by the same chain of fma: without an activation bit for bit.
#include <gtest/gtest.h>

#include <cstring>

#include "jit/jit.h"
#include "quant/format.h"
#include "tests/jit/kernel_runner.h"
#include "tests/support/compare.h"
#include "tests/support/emulator.h"
#include "tests/support/guarded.h"
#include "tests/support/random.h"
#include "tests/support/test_tensor.h"

namespace nibble {

namespace {

struct Problem {
  int64_t m, k;
  std::vector<int64_t> n;
  const char* format = "f16";
  bool bias = false, residual = false;
  std::string gate = "", activation = "";
};

class MatmulFloat : public testing::TestWithParam<std::pair<Isa, const char*>> {
 protected:
  void SetUp() override {
    jit::register_kernels();
    if (GetParam().first > max_isa()) GTEST_SKIP() << "needs " << name(GetParam().first);
    if (!supported(GetParam().first)) emulator::install();
  }

  /// The fast result for `threads`; compares it with the reference. x is a slice of a wider matrix.
  void check(const Problem& p, int threads) {
    test::Random random(static_cast<uint64_t>(p.m * 1000 + p.k));
    std::vector<test::Guarded> memory;
    memory.reserve(p.n.size());
    std::vector<Tensor> in;
    test::Guarded x(static_cast<size_t>((p.m * (p.k + 3) - 3) * 4));
    const auto values = random.floats(static_cast<int64_t>(x.size() / 4));
    std::memcpy(x.data(), values.data(), x.size());
    in.push_back(Tensor({Shape{p.m, p.k}, DType::f32}, x.data()));
    in[0].strides = Shape{p.k + 3, 1};
    int64_t columns = 0;
    for (const int64_t n : p.n) {
      const QuantFormat& format = quant::find_format(p.format);
      memory.emplace_back(format.bytes(format, n, p.k), test::Flush::end, 64);
      quant::quantize_rows(format, random.floats(n * p.k).data(), n, p.k, 0, n, memory.back().data());
      in.push_back(Tensor({Shape{n, p.k}, DType::packed, &format}, memory.back().data()));
      columns += n;
    }
    const int64_t out_columns = p.gate.empty() ? columns : columns / 2;
    const test::TestTensor bias(Shape{columns}, DType::f32, random.floats(columns));
    const test::TestTensor residual(Shape{p.m, out_columns}, DType::f32, random.floats(p.m * out_columns));
    if (p.bias) in.push_back(bias);
    if (p.residual) in.push_back(residual);
    const Attrs attrs{{"weights", static_cast<int64_t>(p.n.size())},
                      {"bias", int64_t{p.bias}},
                      {"residual", int64_t{p.residual}},
                      {"gate", p.gate},
                      {"activation", p.activation}};
    const test::TestTensor want = test::run_reference("matmul", in, attrs);
    test::Guarded y(static_cast<size_t>(p.m * out_columns) * 4);
    const Tensor out(want.tensor().desc, y.data());
    ThreadPool pool(threads);
    test::KernelRunner runner("matmul", GetParam().second, in, out.desc, attrs, threads, 1, 1 + p.n.size());
    runner.run(pool, in, out);
    const std::vector<float> got(y.as<float>(), y.as<float>() + p.m * out_columns);
    const std::string what = message(runner.detail(), " m ", p.m, " k ", p.k, " n ", p.n[0], " ", p.gate, p.activation);
    if (p.gate.empty() && p.activation.empty()) {
      EXPECT_TRUE(test::same_bits(got, want.floats(), what, random.seed()));
    } else {
      // The activation's own few roundings, of values up to k.
      const double size = static_cast<double>(p.k + 2);
      EXPECT_TRUE(test::close(got, want.floats(), 16 * test::f32_epsilon * size * (p.gate.empty() ? 1 : size), what,
                              random.seed()));
    }
  }
};

TEST_P(MatmulFloat, EqualsReferenceForAnyShape) {
  for (const char* format : {"f32", "f16", "bf16"}) {
    for (int64_t m : {1, 2, 5, 7, 13, 100}) {
      for (int64_t k : {1, 7, 33}) check({.m = m, .k = k, .n = {m == 7 ? 150 : 21}, .format = format}, 1);
    }
  }
}
TEST_P(MatmulFloat, EqualsReferenceAcrossBlocksOfRowsAndDepth) {
  for (const char* format : {"f16", "bf16", "e4m3_g64"}) {
    for (int64_t m : {1, 14, 200, 390}) check({.m = m, .k = m < 200 ? 1152 : 320, .n = {20, 150}, .format = format}, 2);
  }
}
TEST_P(MatmulFloat, ReadsEveryCodebookOfFloats) {
  for (const char* book : {"nf4_float", "fp4_float", "e4m3", "e5m2"}) {
    for (const char* product : {"", "_to_f16", "_to_bf16"}) {
      const std::string format = message(book, "_g64", product);
      for (int64_t m : {1, 2, 3, 4, 5, 13})
        check({.m = m, .k = 128, .n = {m == 13 ? 150 : 37}, .format = format.c_str()}, 1);
    }
  }
}
TEST_P(MatmulFloat, ReadsCodesInGroupsOfAnyLength) {
  for (const char* format : {"nf4_float_g32_to_bf16", "e4m3_g128", "fp4_float_row", "e4m3_row_to_bf16"}) {
    for (int64_t m : {1, 9})
      check({.m = m,
             .k = std::string(format).find("row") == std::string::npos ? 1152 : 1120,
             .n = {40, 21},
             .format = format},
            2);
  }
}
/// As floats of the same values do.
TEST_P(MatmulFloat, ReadsFileBlocksWithScalesOfEightBits) {
  const int64_t n = 37, k = 256;
  for (const char* name : {"e4m3_g64_fp8", "e5m2_g32_fp8", "e4m3_g128_fp8"}) {
    const quant::BlockType& type = *quant::find_native_type(name);
    const QuantFormat &coded = *type.format, &plain = quant::find_format("f32");
    test::Random random(9);
    const std::vector<float> weight = random.floats(n * k);
    std::vector<std::byte> blocks(weight.size() / static_cast<size_t>(type.block_elements) * type.block_bytes);
    for (size_t b = 0; b < blocks.size() / type.block_bytes; ++b)
      type.encode(weight.data() + b * static_cast<size_t>(type.block_elements), blocks.data() + b * type.block_bytes);
    std::vector<float> values(weight.size());
    quant::dequantize_blocks(type, blocks.data(), n * k, values.data());
    EXPECT_NE(values, weight);
    test::Guarded packed(coded.bytes(coded, n, k), test::Flush::end, 64), exact(plain.bytes(plain, n, k));
    quant::pack_rows(type, blocks.data(), n, k, 0, n, packed.data());
    quant::quantize_rows(plain, values.data(), n, k, 0, n, exact.data());
    const Attrs attrs{{"weights", int64_t{1}}, {"bias", int64_t{0}}, {"residual", int64_t{0}}};
    for (const int64_t m : {1, 3, 20}) {
      const test::TestTensor x(Shape{m, k}, DType::f32, random.floats(m * k));
      std::vector<Tensor> in = {x, Tensor({Shape{n, k}, DType::packed, &plain}, exact.data())};
      const test::TestTensor want = test::run_reference("matmul", in, attrs);
      in[1] = Tensor({Shape{n, k}, DType::packed, &coded}, packed.data());
      const test::TestTensor out(Shape{m, n}, DType::f32, std::vector<float>(static_cast<size_t>(m * n)));
      ThreadPool pool(2);
      test::KernelRunner runner("matmul", GetParam().second, in, out.tensor().desc, attrs, 2, 1, 2);
      runner.run(pool, in, out);
      EXPECT_TRUE(test::same_bits(out.floats(), want.floats(), message(name, " m ", m), random.seed()));
    }
  }
}
TEST_P(MatmulFloat, JoinsWeightsAndAddsBiasAndResidual) {
  for (int64_t m : {1, 9}) {
    for (int threads : {1, 2}) check({.m = m, .k = 24, .n = {40, 9, 17}, .bias = true, .residual = true}, threads);
  }
}
TEST_P(MatmulFloat, GatesAndActivates) {
  for (const char* f : {"silu", "gelu", "gelu_tanh", "relu"}) {
    check({.m = 3, .k = 12, .n = {37, 37}, .bias = true, .residual = true, .gate = f}, 2);
    check({.m = 8, .k = 12, .n = {37}, .bias = true, .activation = f}, 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, MatmulFloat,
                         testing::Values(std::pair{Isa::avx2, "matmul_float_avx2"},
                                         std::pair{Isa::avx512vnni, "matmul_float_avx512"}),
                         [](const auto& isa) { return std::string(name(isa.param.first)); });

}  // namespace

}  // namespace nibble
