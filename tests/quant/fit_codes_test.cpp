// SPDX-License-Identifier: Apache-2.0
// Codes, scales and zero points that stand apart.
#include "quant/fit_codes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "quant/codes.h"
#include "quant/spec.h"
#include "tensor/check.h"

namespace nibble::quant {
namespace {

std::vector<float> normal(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> values(0.002f, 0.02f);
  std::vector<float> result(count);
  for (float& value : result) value = values(random);
  return result;
}

struct Coded {
  std::vector<uint8_t> codes;
  std::vector<float> scales, offsets;
  double cost = 0;
};

Coded code(const CodedTarget& target, const std::vector<float>& in, int64_t k, const InputStatistics& inputs = {},
           bool search = true) {
  const auto rows = static_cast<int64_t>(in.size()) / k;
  const auto groups = static_cast<size_t>(rows * target.groups(k));
  Coded out{std::vector<uint8_t>(in.size()), std::vector<float>(groups), std::vector<float>(groups)};
  out.cost =
      fit_codes(target, in.data(), rows, k, inputs, out.codes.data(), out.scales.data(), out.offsets.data(), search);
  return out;
}

/// What the numbers stand for, by the formulas of the documentation.
std::vector<float> values_of(const CodedTarget& target, const Coded& coded, int64_t k) {
  const QuantLayout& layout = target.layout;
  const FloatBook* book = float_book(layout.codebook);
  std::vector<float> out(coded.codes.size());
  for (size_t i = 0; i < out.size(); ++i) {
    const auto row = static_cast<int64_t>(i) / k, column = static_cast<int64_t>(i) % k;
    const auto g = static_cast<size_t>(row * target.groups(k) + column / target.group(k));
    const double d = double{coded.scales[g]}, u = coded.codes[i], offset = double{coded.offsets[g]};
    const double number = book != nullptr ? double{book->value(coded.codes[i])} * double{book->unit}
                          : layout.codebook != 0
                              ? static_cast<double>(panel_codebook(layout.codebook).values[coded.codes[i]])
                              : u - (layout.zero_point == ZeroPoint::minimum ? 0 : offset);
    out[i] = static_cast<float>(d * number + (layout.zero_point == ZeroPoint::minimum ? offset : 0));
  }
  return out;
}

double error_of(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(double{a[i]} - double{b[i]}, 2);
  return sum;
}

TEST(FitCodes, IsAsGoodAsTheSearchOfBlocks) {
  const std::vector<float> in = normal(16 * 256, 1);
  for (const BlockType* type : native_block_types()) {
    if (!can_fit(*type)) continue;
    const CodedTarget target{.layout = type->format->layout, .round_scale = type->round_scale};
    const double error = error_of(values_of(target, code(target, in, 256), 256), in);
    std::vector<std::byte> blocks(in.size() / static_cast<size_t>(type->block_elements) * type->block_bytes);
    fit_rows(*type, in.data(), 16, 256, {}, blocks.data());
    std::vector<float> out(in.size());
    dequantize_blocks(*type, blocks.data(), static_cast<int64_t>(in.size()), out.data());
    // candidates are nearly the same, and rounded scales are looked at more closely here
    EXPECT_LT(error, 1.01 * error_of(out, in)) << type->name;
  }
}

TEST(FitCodes, FindsZeroPointsThatBeatRoundingFromEndToEnd) {
  const std::vector<float> in = normal(32 * 128, 2);
  for (const int bits : {2, 3, 4, 8})
    for (const int group : {0, 32, 128})
      for (const DType scale : {DType::f16, DType::bf16, DType::f32}) {
        const CodedTarget target{.layout = {.group = static_cast<uint16_t>(group),
                                            .bits = static_cast<uint8_t>(bits),
                                            .zero_point = ZeroPoint::integer,
                                            .scale = scale}};
        const Coded found = code(target, in, 128);
        Coded plain = found;
        quantize_numbers(target.layout, in.data(), 32, 128, plain.codes.data(), plain.scales.data(),
                         plain.offsets.data());
        const double error = error_of(values_of(target, found, 128), in),
                     before = error_of(values_of(target, plain, 128), in);
        EXPECT_LE(error, (bits < 8 ? 0.97 : 1) * before) << spec_of(target.layout);
        for (size_t g = 0; g < found.offsets.size(); ++g) {
          EXPECT_EQ(found.offsets[g], std::floor(found.offsets[g]));
          EXPECT_TRUE(found.offsets[g] >= 0 && found.offsets[g] < static_cast<float>(1 << bits)) << found.offsets[g];
        }
      }
}

TEST(FitCodes, FloatBooksKeepPositiveScales) {
  const std::vector<float> in = normal(32 * 128, 3);
  for (const uint8_t book : {books::nf4_float, books::fp4_float, books::e4m3, books::e5m2}) {
    const CodedTarget target{
        .layout = {
            .group = 64, .bits = static_cast<uint8_t>(float_book(book)->bits), .scale = DType::f32, .codebook = book}};
    const Coded found = code(target, in, 128), plain = code(target, in, 128, {}, false);
    for (const float scale : found.scales) EXPECT_GT(scale, 0);
    Coded peaks = plain;
    quantize_numbers(target.layout, in.data(), 32, 128, peaks.codes.data(), peaks.scales.data(), peaks.offsets.data());
    EXPECT_EQ(plain.scales, peaks.scales) << int{book};
    EXPECT_LE(error_of(values_of(target, plain, 128), in), error_of(values_of(target, peaks, 128), in) * (1 + 1e-6))
        << int{book};
    EXPECT_LE(error_of(values_of(target, found, 128), in),
              (book < books::e4m3 ? 0.99 : 1) * error_of(values_of(target, plain, 128), in))
        << int{book};
  }
}

TEST(FitCodes, GroupsAreAloneAndTheLastMayBeShort) {
  for (const ZeroPoint zero : {ZeroPoint::symmetric, ZeroPoint::minimum, ZeroPoint::integer}) {
    const CodedTarget target{.layout = {.group = 128, .bits = 4, .zero_point = zero}};
    const std::vector<float> in = normal(2 * 300, 4);
    const Coded all = code(target, in, 300);
    ASSERT_EQ(all.scales.size(), 6u);
    for (size_t row = 0; row < 2; ++row)
      for (size_t g = 0; g < 3; ++g) {
        const auto begin = in.begin() + static_cast<int64_t>(row * 300 + g * 128);
        const std::vector<float> part(begin, begin + (g < 2 ? 128 : 44));
        const CodedTarget one{.layout = {.group = 0, .bits = 4, .zero_point = zero}};
        const Coded alone = code(one, part, static_cast<int64_t>(part.size()));
        EXPECT_EQ(alone.scales[0], all.scales[row * 3 + g]);
        EXPECT_EQ(alone.offsets[0], all.offsets[row * 3 + g]);
        EXPECT_TRUE(std::equal(alone.codes.begin(), alone.codes.end(),
                               all.codes.begin() + static_cast<int64_t>(row * 300 + g * 128)));
      }
  }
}

TEST(FitCodes, FeedbackLowersTheErrorOfTheProduct) {
  // inputs that go together: errors of one weight can be made good by others
  constexpr int64_t k = 128, samples = 512, rows = 8;
  const std::vector<float> noise = normal(static_cast<size_t>(samples * k), 5),
                           common = normal(static_cast<size_t>(samples), 6);
  std::vector<float> x(noise.size());
  InputStatistics plain, fed;
  plain.squares.resize(k);
  fed.feedback.resize(static_cast<size_t>(k * k));
  for (int64_t s = 0; s < samples; ++s)
    for (int64_t j = 0; j < k; ++j)
      x[static_cast<size_t>(s * k + j)] =
          (1 + 0.01f * static_cast<float>(j)) *
          (0.3f * noise[static_cast<size_t>(s * k + j)] + common[static_cast<size_t>(s)]);
  for (int64_t s = 0; s < samples; ++s)
    for (int64_t i = 0; i < k; ++i) {
      plain.squares[static_cast<size_t>(i)] += x[static_cast<size_t>(s * k + i)] * x[static_cast<size_t>(s * k + i)];
      for (int64_t j = 0; j < k; ++j)
        fed.feedback[static_cast<size_t>(i * k + j)] +=
            x[static_cast<size_t>(s * k + i)] * x[static_cast<size_t>(s * k + j)];
    }
  fed.squares = plain.squares;
  fed.order = order_moments(fed.feedback, k);
  ASSERT_TRUE(factor_feedback(fed.feedback, k, 0));
  const std::vector<float> in = normal(rows * k, 7);
  const auto product_error = [&](const std::vector<float>& out) {
    double sum = 0;
    for (size_t r = 0; r < rows; ++r)
      for (size_t s = 0; s < samples; ++s) {
        double dot = 0;
        for (size_t j = 0; j < k; ++j) dot += (double{out[r * k + j]} - double{in[r * k + j]}) * double{x[s * k + j]};
        sum += dot * dot;
      }
    return sum;
  };
  const QuantLayout layouts[] = {{.group = 32, .bits = 4},
                                 {.group = 0, .bits = 4, .zero_point = ZeroPoint::integer, .scale = DType::bf16},
                                 {.group = 64, .bits = 4, .scale = DType::f32, .codebook = books::nf4_float},
                                 {.group = 0, .bits = 8, .scale = DType::f32, .codebook = books::e4m3}};
  for (const QuantLayout& layout : layouts) {
    const CodedTarget target{.layout = layout};
    const Coded with = code(target, in, k, fed), without = code(target, in, k, plain);
    const double error = product_error(values_of(target, with, k));
    EXPECT_LT(error, 0.5 * product_error(values_of(target, without, k))) << int{layout.codebook};
    EXPECT_NEAR(with.cost / error, 1, 1e-2) << int{layout.codebook};
    InputStatistics in_place = plain;  // in the order of the inputs
    in_place.feedback = fed.feedback;
    EXPECT_NO_THROW(code(target, in, k, in_place));
  }
}

TEST(FitCodes, RefusesWhatItCanNotHold) {
  std::vector<float> in(64, 1.0f);
  const CodedTarget target{.layout = {.group = 64, .bits = 4}};
  in[5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(code(target, in, 64), Error);
  in[5] = 3e6f;
  EXPECT_THROW(code(target, in, 64), Error);
  in[5] = 1;
  EXPECT_THROW(code(target, in, 64, {.squares = {1, 2}, .feedback = {}, .order = {}}), Error);
}

}  // namespace
}  // namespace nibble::quant
