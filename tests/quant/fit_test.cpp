// SPDX-License-Identifier: Apache-2.0
// Our own block types and the search for their scales.
#include "quant/fit.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "tensor/check.h"
#include "tensor/dtype.h"

namespace nibble::quant {
namespace {

std::vector<float> normal(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> values(0, 0.02f);
  std::vector<float> result(count);
  for (float& value : result) value = values(random);
  return result;
}

std::vector<float> there_and_back(const BlockType& type, const std::vector<float>& in, int64_t k, const InputStatistics& inputs = {}) {
  const auto rows = static_cast<int64_t>(in.size()) / k;
  std::vector<std::byte> blocks(in.size() / static_cast<size_t>(type.block_elements) * type.block_bytes);
  fit_rows(type, in.data(), rows, k, inputs, blocks.data());
  std::vector<float> out(in.size());
  dequantize_blocks(type, blocks.data(), static_cast<int64_t>(in.size()), out.data());
  return out;
}

TEST(NativeTypes, DecodeWhatWasWrittenAndPackExactly) {
  for (const BlockType* type : native_block_types()) {
    EXPECT_EQ(find_native_type(type->name), type);
    const int bits = type->format->layout.bits, count = type->block_elements;
    EXPECT_EQ(type->block_bytes, 2 + static_cast<size_t>(bits * count / 8));
    std::vector<std::byte> blocks(16 * 2 * type->block_bytes);
    std::mt19937 random(7);
    for (size_t b = 0; b < 32; ++b) {
      uint8_t codes[256];
      for (int j = 0; j < count; ++j) codes[j] = static_cast<uint8_t>(random() % (1u << bits));
      const float scale = f16_to_f32(f32_to_f16(0.01f * static_cast<float>(b) - 0.1f));
      std::byte* block = blocks.data() + b * type->block_bytes;
      write_native_block(*type, codes, scale, block);
      BlockCodes back{};
      type->decode(block, back);
      EXPECT_EQ(back.scale[0], scale);
      for (int j = 0; j < count; ++j) ASSERT_EQ(back.codes[j], codes[j]) << type->name << ' ' << j;
    }
    const int64_t n = 16, k = 2 * count;
    std::vector<std::byte> packed(type->format->bytes(*type->format, n, k));
    pack_rows(*type, blocks.data(), n, k, 0, n, packed.data());
    std::vector<float> values(static_cast<size_t>(n * k)), expected(values.size());
    type->format->dequantize(*type->format, packed.data(), n, k, 0, n, values.data());
    dequantize_blocks(*type, blocks.data(), n * k, expected.data());
    EXPECT_EQ(values, expected) << type->name;
  }
  EXPECT_EQ(find_native_type("q4_0"), nullptr);
  EXPECT_EQ(find_block_type(native_gguf_id), nullptr) << "a file must name our types";
}

double error_of(const std::vector<float>& a, const std::vector<float>& b, const std::vector<float>& weights) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += double{weights[i % weights.size()]} * std::pow(double{a[i]} - double{b[i]}, 2);
  return sum;
}

TEST(Fit, BeatsRoundingToNearestAndKeepsWhatFits) {
  const BlockType& type = *find_native_type("q4_g64");
  const std::vector<float> in = normal(64 * 128, 1), ones = {1};
  std::vector<std::byte> packed(type.format->bytes(*type.format, 64, 128));
  quantize_rows(*type.format, in.data(), 64, 128, 0, 64, packed.data());
  std::vector<float> nearest(in.size());
  type.format->dequantize(*type.format, packed.data(), 64, 128, 0, 64, nearest.data());
  const std::vector<float> fitted = there_and_back(type, in, 128);
  EXPECT_LT(error_of(fitted, in, ones), 0.95 * error_of(nearest, in, ones));

  std::vector<float> exact(128);
  for (size_t j = 0; j < exact.size(); ++j) exact[j] = 0.5f * static_cast<float>(static_cast<int>(j * 5 % 16) - 8);
  EXPECT_EQ(there_and_back(type, exact, 128), exact);
  EXPECT_EQ(there_and_back(type, std::vector<float>(128), 128), std::vector<float>(128));
}

TEST(Fit, SparesTheWeightsThatMatter) {
  const BlockType& type = *find_native_type("q4_g64");
  InputStatistics inputs;
  for (int j = 0; j < 64; ++j) inputs.squares.push_back(j % 8 == 0 ? 100.0f : 1.0f);
  const std::vector<float> in = normal(64 * 256, 2);
  EXPECT_LT(error_of(there_and_back(type, in, 64, inputs), in, inputs.squares),
            0.9 * error_of(there_and_back(type, in, 64), in, inputs.squares));
}

TEST(Fit, FeedbackLowersTheErrorOfTheProduct) {
  // inputs that go together: errors of one weight can be made good by others
  constexpr int64_t k = 128, samples = 1024;
  const std::vector<float> noise = normal(static_cast<size_t>(samples * k), 3), common = normal(static_cast<size_t>(samples), 4);
  std::vector<float> x(noise.size()), moments(static_cast<size_t>(k * k));
  InputStatistics plain, fed;
  plain.squares.resize(k);
  for (int64_t s = 0; s < samples; ++s)
    for (int64_t j = 0; j < k; ++j) x[static_cast<size_t>(s * k + j)] = 0.3f * noise[static_cast<size_t>(s * k + j)] + common[static_cast<size_t>(s)];
  for (int64_t s = 0; s < samples; ++s)
    for (int64_t i = 0; i < k; ++i) {
      plain.squares[static_cast<size_t>(i)] += x[static_cast<size_t>(s * k + i)] * x[static_cast<size_t>(s * k + i)] / samples;
      for (int64_t j = 0; j < k; ++j) moments[static_cast<size_t>(i * k + j)] += x[static_cast<size_t>(s * k + i)] * x[static_cast<size_t>(s * k + j)];
    }
  const std::vector<float> before = moments;
  fed.squares = plain.squares;
  ASSERT_TRUE(factor_feedback(moments, k, 0));
  fed.feedback = moments;
  // Uᵀ U times the moments is the identity
  for (const int64_t i : {0, 5, 127})
    for (const int64_t j : {0, 5, 127}) {
      double sum = 0;
      for (int64_t p = 0; p < k; ++p) {
        double inverse = 0;
        for (int64_t q = 0; q <= std::min(i, p); ++q) inverse += double{moments[static_cast<size_t>(q * k + i)]} * double{moments[static_cast<size_t>(q * k + p)]};
        sum += inverse * double{before[static_cast<size_t>(p * k + j)]};
      }
      EXPECT_NEAR(sum, i == j ? 1 : 0, 1e-3) << i << ' ' << j;
    }
  const BlockType& type = *find_native_type("q4_g64");
  const std::vector<float> in = normal(16 * k, 5);
  const auto product_error = [&](const std::vector<float>& out) {
    double sum = 0;
    for (size_t r = 0; r < 16; ++r)
      for (size_t s = 0; s < samples; ++s) {
        double dot = 0;
        for (size_t j = 0; j < k; ++j) dot += (double{out[r * k + j]} - double{in[r * k + j]}) * double{x[s * k + j]};
        sum += dot * dot;
      }
    return sum;
  };
  EXPECT_LT(product_error(there_and_back(type, in, k, fed)), 0.5 * product_error(there_and_back(type, in, k, plain)));
  std::vector<float> singular(static_cast<size_t>(k * k));
  EXPECT_FALSE(factor_feedback(singular, k, 0));
}

TEST(Fit, RefusesWhatItCanNotHold) {
  const BlockType& type = *find_native_type("q4_g128");
  std::vector<std::byte> blocks(1024);
  std::vector<float> in(128, 1.0f);
  EXPECT_THROW(fit_rows(type, in.data(), 1, 64, {}, blocks.data()), Error);
  EXPECT_THROW(fit_rows(*find_block_type(2), in.data(), 1, 128, {}, blocks.data()), Error);
  EXPECT_THROW(fit_rows(type, in.data(), 1, 128, {.squares = {1, 2}, .feedback = {}}, blocks.data()), Error);
  in[5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(fit_rows(type, in.data(), 1, 128, {}, blocks.data()), Error);
  in[5] = 3e6f;
  EXPECT_THROW(fit_rows(type, in.data(), 1, 128, {}, blocks.data()), Error);
}

}  // namespace
}  // namespace nibble::quant
