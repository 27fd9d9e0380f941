// SPDX-License-Identifier: Apache-2.0
// Every microkernel of gemm_float_keys, bit for bit against a chain of fma per element, or an exact sum of codes, on
// memory that ends at a guard.
#include "jit/gemm_float.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tensor/check.h"
#include "tests/support/compare.h"
#include "tests/support/emulator.h"
#include "tests/support/guarded.h"
#include "tests/support/random.h"

namespace nibble {

namespace {

float element(DType type, uint16_t bits) { return type == DType::f16 ? f16_to_f32(bits) : bf16_to_f32(bits); }

void check(const jit::GemmFloatKey& key, const jit::Code& code, int64_t k, bool accumulate) {
  const int64_t rows = key.rows, panels = key.panels, columns = 16 * panels;
  const size_t size = element_bytes(key.b);
  test::Random random(static_cast<uint64_t>(k) + 1);
  test::Guarded a(static_cast<size_t>(rows * k + 1) * 4), b(static_cast<size_t>(panels * k * 16 + 1) * size),
      c(static_cast<size_t>(rows * columns) * 4);
  std::vector<float> weights(static_cast<size_t>(panels * k * 16)), want(static_cast<size_t>(rows * columns));
  for (int64_t i = 0; i < rows * k; ++i) a.as<float>()[i + 1] = random.uniform();
  for (size_t i = 0; i < weights.size(); ++i) {
    const float w = random.uniform();
    std::byte* at = b.data() + (i + 1) * size;
    if (key.b == DType::f32) {
      std::memcpy(at, &w, 4);
      weights[i] = w;
    } else {
      const uint16_t bits = key.b == DType::f16 ? f32_to_f16(w) : f32_to_bf16(w);
      std::memcpy(at, &bits, 2);
      weights[i] = element(key.b, bits);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < columns; ++j) {
      float& sum = want[static_cast<size_t>(r * columns + j)];
      c.as<float>()[r * columns + j] = sum = random.uniform();
      if (!accumulate) sum = 0;
      for (int64_t i = 0; i < k; ++i) {
        sum = std::fma(a.as<float>()[r * k + i + 1], weights[static_cast<size_t>((j / 16 * k + i) * 16 + j % 16)], sum);
      }
    }
  }
  code(jit::GemmFloatArgs{.a = a.as<float>() + 1,
                          .a_stride = k * 4,
                          .b = b.data() + size,
                          .b_stride = static_cast<int64_t>(16 * size),
                          .b_panel = static_cast<int64_t>(16 * size) * k,
                          .b_ahead = 0,
                          .c = c.as<float>(),
                          .c_stride = columns * 4,
                          .k = k,
                          .accumulate = accumulate});
  EXPECT_TRUE(test::same_bits(std::vector<float>(c.as<float>(), c.as<float>() + rows * columns), want,
                              message(code.name(), " k ", k), random.seed()));
}

/// Pairs of int16 times pairs of int8, widened where `type` is i32, of `panels` panels of `k` pairs; run(args) does the
/// work.
template <class Run>
void check_codes(DType type, int64_t rows, int64_t panels, int64_t k, bool accumulate, Run run,
                 const std::string& what) {
  const int64_t columns = 16 * panels;
  test::Random random(static_cast<uint64_t>(k) + 7);
  const int64_t pair = type == DType::i8 ? 2 : 4;
  test::Guarded a(static_cast<size_t>(rows * k) * 4), b(static_cast<size_t>(panels * k * 16 * pair)),
      c(static_cast<size_t>(rows * columns) * 4), row_scales(static_cast<size_t>(rows) * 4),
      column_scales(static_cast<size_t>(columns) * 4);
  for (int64_t i = 0; i < rows * k * 2; ++i)
    a.as<int16_t>()[i] = static_cast<int16_t>(std::lround(random.uniform() * 32767));
  std::vector<int8_t> codes;
  for (int64_t i = 0; i < panels * k * 32; ++i) {
    codes.push_back(static_cast<int8_t>(std::lround(random.uniform() * 127)));
    if (type == DType::i8) b.as<int8_t>()[i] = codes.back();
    else b.as<int16_t>()[i] = codes.back();
  }
  for (int64_t r = 0; r < rows; ++r) row_scales.as<float>()[r] = random.uniform();
  for (int64_t j = 0; j < columns; ++j) column_scales.as<float>()[j] = random.uniform();
  std::vector<float> want;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < columns; ++j) {
      int64_t sum = 0;
      for (int64_t i = 0; i < 2 * k; ++i) {
        sum += int64_t{a.as<int16_t>()[r * 2 * k + i]} *
               codes[static_cast<size_t>(((j / 16 * k + i / 2) * 16 + j % 16) * 2 + i % 2)];
      }
      const float row = row_scales.as<float>()[r], before = c.as<float>()[r * columns + j] = random.uniform();
      const auto exact = static_cast<float>(static_cast<int32_t>(sum));
      want.push_back(accumulate ? std::fma(exact, row, before) : exact * row * column_scales.as<float>()[j]);
    }
  }
  run(jit::GemmFloatArgs{.a = a.data(),
                         .a_stride = k * 4,
                         .b = b.data(),
                         .b_stride = 16 * pair,
                         .b_panel = 16 * pair * k,
                         .b_ahead = 0,
                         .c = c.as<float>(),
                         .c_stride = columns * 4,
                         .k = k,
                         .accumulate = accumulate,
                         .row_scales = row_scales.as<float>(),
                         .column_scales = accumulate ? nullptr : column_scales.as<float>()});
  EXPECT_TRUE(test::same_bits(std::vector<float>(c.as<float>(), c.as<float>() + rows * columns), want,
                              message(what, " k ", k), random.seed()));
}

class GemmFloat : public testing::TestWithParam<Isa> {};

TEST_P(GemmFloat, EveryKernelIsAChainOfFmaOrAnExactSum) {
  if (GetParam() > max_isa()) GTEST_SKIP() << "needs " << name(GetParam());
  if (!supported(GetParam())) emulator::install();
  for (const jit::GemmFloatKey& key : jit::gemm_float_keys(GetParam())) {
    const jit::Code& code = jit::gemm_float(key);
    for (int64_t k : {0, 1, 3, 4, 21}) {
      if (key.b != DType::i8 && key.b != DType::i32) {
        check(key, code, k, k % 2 == 1);
        continue;
      }
      for (bool accumulate : {false, true}) {
        check_codes(
            key.b, key.rows, key.panels, k, accumulate, [&](const jit::GemmFloatArgs& args) { code(args); },
            std::string(code.name()));
      }
    }
  }
}

TEST_P(GemmFloat, SplitsRowsAndPanelsOfCodes) {
  if (GetParam() > max_isa()) GTEST_SKIP() << "needs " << name(GetParam());
  if (!supported(GetParam())) emulator::install();
  for (DType type : {DType::i8, DType::i32}) {
    const jit::GemmFloat gemm(GetParam(), type);
    for (int64_t rows : {1, 7, 13, 25}) {
      for (int64_t panels : {1, 3, 7}) {
        const auto run = [&](const jit::GemmFloatArgs& args) { gemm.run(args, rows, panels); };
        for (bool accumulate : {false, true})
          check_codes(type, rows, panels, 5, accumulate, run,
                      message(name(type), ", ", rows, " rows, ", panels, " panels"));
      }
    }
  }
}

TEST_P(GemmFloat, SplitsRowsAndPanels) {
  if (GetParam() > max_isa()) GTEST_SKIP() << "needs " << name(GetParam());
  if (!supported(GetParam())) emulator::install();
  const jit::GemmFloat gemm(GetParam(), DType::f32);
  constexpr int64_t k = 5;
  test::Random random(3);
  for (int64_t rows : {1, 7, 13, 25}) {
    for (int64_t panels : {1, 3, 7}) {
      const auto a = random.floats(rows * k), b = random.floats(panels * k * 16);
      std::vector<float> got(static_cast<size_t>(rows * panels * 16)), want = got;
      for (int64_t i = 0; i < rows * panels * 16; ++i) {
        const int64_t r = i / (panels * 16), j = i % (panels * 16);
        for (int64_t l = 0; l < k; ++l) {
          want[static_cast<size_t>(i)] =
              std::fma(a[static_cast<size_t>(r * k + l)], b[static_cast<size_t>((j / 16 * k + l) * 16 + j % 16)],
                       want[static_cast<size_t>(i)]);
        }
      }
      gemm.run({.a = a.data(),
                .a_stride = k * 4,
                .b = b.data(),
                .b_stride = 64,
                .b_panel = 64 * k,
                .b_ahead = 0,
                .c = got.data(),
                .c_stride = panels * 64,
                .k = k,
                .accumulate = 0},
               rows, panels);
      EXPECT_TRUE(test::same_bits(got, want, message(rows, " rows, ", panels, " panels"), random.seed()));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, GemmFloat, testing::Values(Isa::avx2, Isa::avx512vnni),
                         [](const auto& isa) { return std::string(name(isa.param)); });

}  // namespace

}  // namespace nibble
