// SPDX-License-Identifier: Apache-2.0
// Our own block types and the search for their scales.
#include "quant/fit.h"

#include <gtest/gtest.h>

#include <algorithm>
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

std::vector<float> there_and_back(const BlockType& type, const std::vector<float>& in, int64_t k,
                                  const InputStatistics& inputs = {}) {
  const auto rows = static_cast<int64_t>(in.size()) / k;
  std::vector<std::byte> blocks(in.size() / static_cast<size_t>(type.block_elements) * type.block_bytes);
  fit_rows(type, in.data(), rows, k, inputs, blocks.data());
  std::vector<float> out(in.size());
  dequantize_blocks(type, blocks.data(), static_cast<int64_t>(in.size()), out.data());
  return out;
}

std::vector<const BlockType*> fitted_types() {
  std::vector<const BlockType*> types;
  for (const auto& known : {native_block_types(), all_block_types()})
    for (const BlockType* type : known)
      if (type->block_elements > 1 && can_fit(*type)) types.push_back(type);
  return types;
}

/// Codes and scales that the type can hold.
BlockCodes random_codes(const BlockType& type, std::mt19937& random) {
  const QuantLayout& layout = type.format->layout;
  BlockCodes block{};
  for (int j = 0; j < type.block_elements; ++j) block.codes[j] = static_cast<uint8_t>(random() % (1u << layout.bits));
  const auto multiplier = [&] {
    return static_cast<int8_t>(
        type.multiplier_low +
        static_cast<int>(random() % static_cast<unsigned>(type.multiplier_high - type.multiplier_low + 1)));
  };
  const int groups = type.block_elements / layout.group, scales = layout.sub_groups != 0 ? 1 : groups;
  for (int g = 0; g < scales; ++g) {
    block.scale[g] = static_cast<float>(static_cast<int>(random() % 200) - 100) / 1024;
    if (type.round_scale != nullptr) block.scale[g] = type.round_scale(block.scale[g]);
    if (layout.zero_point == ZeroPoint::minimum) block.minimum[g] = static_cast<float>(random() % 200) / 1024;
  }
  for (int g = 0; layout.sub_groups != 0 && g < groups; ++g) {
    block.sub_scale[g] = multiplier();
    if (layout.zero_point == ZeroPoint::minimum) block.sub_minimum[g] = multiplier();
  }
  return block;
}

TEST(BlockTypes, DecodeWhatTheyWrote) {
  std::mt19937 random(7);
  for (const BlockType* type : fitted_types()) {
    const QuantLayout& layout = type->format->layout;
    const int scales = layout.sub_groups != 0 ? 1 : type->block_elements / layout.group;
    for (int repeat = 0; repeat < 20; ++repeat) {
      const BlockCodes in = random_codes(*type, random);
      std::vector<std::byte> block(type->block_bytes);
      type->write(in, block.data());
      BlockCodes back{};
      type->decode(block.data(), back);
      for (int j = 0; j < type->block_elements; ++j) ASSERT_EQ(back.codes[j], in.codes[j]) << type->name << ' ' << j;
      for (int g = 0; g < scales; ++g) {
        ASSERT_EQ(back.scale[g], in.scale[g]) << type->name << ' ' << g;
        ASSERT_EQ(back.minimum[g], in.minimum[g]) << type->name << ' ' << g;
      }
      for (int g = 0; g < layout.sub_groups; ++g) {
        ASSERT_EQ(back.sub_scale[g], in.sub_scale[g]) << type->name << ' ' << g;
        ASSERT_EQ(back.sub_minimum[g], in.sub_minimum[g]) << type->name << ' ' << g;
      }
    }
  }
}

TEST(NativeTypes, PackExactly) {
  for (const BlockType* type : native_block_types()) {
    EXPECT_EQ(find_native_type(type->name), type);
    const int64_t n = 16, k = 2 * type->block_elements;
    std::mt19937 random(8);
    std::vector<std::byte> blocks(static_cast<size_t>(2 * n) * type->block_bytes);
    for (size_t b = 0; b < static_cast<size_t>(2 * n); ++b) {
      std::byte* block = blocks.data() + b * type->block_bytes;
      if (can_fit(*type))
        type->write(random_codes(*type, random), block);
      else type->encode(normal(static_cast<size_t>(type->block_elements), static_cast<unsigned>(b)).data(), block);
    }
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

TEST(NativeTypes, FloatsOfEightBitsRoundToThreeOrFourBits) {
  for (const char* name : {"e4m3_g64", "e4m3_g128_bf16", "e4m3_g32_f32", "e4m3_g64_fp8", "e5m2_g64_f32", "e5m2_g32",
                           "e5m2_g128_fp8"}) {
    const BlockType& type = *find_native_type(name);
    const std::vector<float> in = normal(static_cast<size_t>(type.block_elements), 3);
    std::vector<std::byte> block(type.block_bytes);
    type.encode(in.data(), block.data());
    std::vector<float> out(in.size());
    dequantize_blocks(type, block.data(), type.block_elements, out.data());
    const float peak = std::fabs(
        *std::max_element(in.begin(), in.end(), [](float a, float b) { return std::fabs(a) < std::fabs(b); }));
    // half a step of the number, or of the smallest ones, and what clamps where the scale was rounded down; one of fp8
    // is up to a sixteenth larger, and so are its smallest steps
    const bool e4m3 = name[1] == '4', coarse = std::string_view(name).ends_with("fp8");
    const float least = peak * (e4m3 ? 0x1p-10f / 448 : 0x1p-17f / 57344) * (coarse ? 17.0f / 16 : 1);
    for (size_t j = 0; j < in.size(); ++j)
      EXPECT_LE(std::fabs(out[j] - in[j]), std::fabs(in[j]) / (e4m3 ? 16 : 8) + least) << name << " " << j;
    if (coarse) {
      std::vector<float> large(in.size(), 100);
      EXPECT_THROW(type.encode(large.data(), block.data()), Error) << name;
    }
  }
}

double error_of(const std::vector<float>& a, const std::vector<float>& b, const std::vector<float>& weights) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i)
    sum += double{weights[i % weights.size()]} * std::pow(double{a[i]} - double{b[i]}, 2);
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

TEST(Fit, BeatsTheReferenceQuantiserOfEveryType) {
  const std::vector<float> in = normal(32 * 512, 11), ones = {1};
  for (const BlockType* type : fitted_types()) {
    const double error = error_of(there_and_back(*type, in, 512), in, ones);
    std::vector<std::byte> blocks(in.size() / static_cast<size_t>(type->block_elements) * type->block_bytes);
    std::vector<float> out(in.size());
    if (type->encode != nullptr) {
      for (size_t b = 0; b < blocks.size() / type->block_bytes; ++b)
        type->encode(in.data() + b * static_cast<size_t>(type->block_elements), blocks.data() + b * type->block_bytes);
    } else {
      fit_rows(*type, in.data(), 32, 512, {}, blocks.data(), false);
    }
    dequantize_blocks(*type, blocks.data(), static_cast<int64_t>(in.size()), out.data());
    // many codes leave little to be found, less still where scales are coarse
    const bool fine = type->format->layout.bits > (type->round_scale != nullptr ? 4 : 5);
    EXPECT_LE(error, (fine ? 1 : 0.93) * error_of(out, in, ones)) << type->name;
  }
}

TEST(Fit, FindsWhatATypeCanHold) {
  std::mt19937 random(12);
  const std::vector<float> ones = {1};
  for (const BlockType* type : fitted_types()) {
    std::vector<float> in(static_cast<size_t>(8 * type->block_elements));
    for (int b = 0; b < 8; ++b) {
      BlockCodes codes = random_codes(*type, random);
      codes.scale[0] = std::fabs(codes.scale[0]);
      // every group reaches both ends, or its scale could not be told from its values
      for (int g = 0; g < type->block_elements; g += type->format->layout.group) {
        codes.codes[g] = 0;
        codes.codes[g + 1] = static_cast<uint8_t>((1 << type->format->layout.bits) - 1);
        codes.codes[g + 2] = static_cast<uint8_t>((1 << type->format->layout.bits) / 2 - 1);
      }
      // no use is made of -128
      for (uint8_t& code : codes.codes) code = std::max<uint8_t>(code, type->format->layout.bits == 8);
      if (type->format->layout.sub_groups != 0) codes.minimum[0] = -codes.minimum[0];
      std::vector<std::byte> block(type->block_bytes);
      type->write(codes, block.data());
      dequantize_blocks(*type, block.data(), type->block_elements, in.data() + b * type->block_elements);
    }
    double squares = 0;
    for (const float x : in) squares += double{x} * double{x};
    // a quarter of what round to nearest would leave in steps of the width; of fine steps a search finds less
    const double step = 2.0 / ((1 << type->format->layout.bits) - 1), part = type->format->layout.bits <= 6 ? 0.25 : 1;
    EXPECT_LT(error_of(there_and_back(*type, in, type->block_elements), in, ones), part * step * step / 12 * squares)
        << type->name;
  }
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
  const std::vector<float> noise = normal(static_cast<size_t>(samples * k), 3),
                           common = normal(static_cast<size_t>(samples), 4);
  std::vector<float> x(noise.size()), moments(static_cast<size_t>(k * k));
  InputStatistics plain, fed;
  plain.squares.resize(k);
  for (int64_t s = 0; s < samples; ++s)
    for (int64_t j = 0; j < k; ++j)
      x[static_cast<size_t>(s * k + j)] = 0.3f * noise[static_cast<size_t>(s * k + j)] + common[static_cast<size_t>(s)];
  for (int64_t s = 0; s < samples; ++s)
    for (int64_t i = 0; i < k; ++i) {
      plain.squares[static_cast<size_t>(i)] +=
          x[static_cast<size_t>(s * k + i)] * x[static_cast<size_t>(s * k + i)] / samples;
      for (int64_t j = 0; j < k; ++j)
        moments[static_cast<size_t>(i * k + j)] +=
            x[static_cast<size_t>(s * k + i)] * x[static_cast<size_t>(s * k + j)];
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
        for (int64_t q = 0; q <= std::min(i, p); ++q)
          inverse += double{moments[static_cast<size_t>(q * k + i)]} * double{moments[static_cast<size_t>(q * k + p)]};
        sum += inverse * double{before[static_cast<size_t>(p * k + j)]};
      }
      EXPECT_NEAR(sum, i == j ? 1 : 0, 1e-3) << i << ' ' << j;
    }
  const BlockType& type = *find_native_type("q4_g64");
  const std::vector<float> in = normal(16 * k, 5);
  std::vector<std::byte> blocks(static_cast<size_t>(16 * k / type.block_elements) * type.block_bytes);
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
  // what it says it costs: `fed` has sums over the samples
  EXPECT_NEAR(fit_rows(type, in.data(), 16, k, fed, blocks.data()) / product_error(there_and_back(type, in, k, fed)), 1,
              1e-3);
  // the same in another order: what matters most first
  InputStatistics ordered;
  ordered.squares = plain.squares;
  ordered.feedback = before;
  ordered.order = order_moments(ordered.feedback, k);
  ASSERT_TRUE(factor_feedback(ordered.feedback, k, 0));
  for (size_t p = 1; p < k; ++p)
    EXPECT_GE(plain.squares[static_cast<size_t>(ordered.order[p - 1])] * 1.0001f,
              plain.squares[static_cast<size_t>(ordered.order[p])]);
  const std::vector<float> in_order = there_and_back(type, in, k, ordered);
  EXPECT_LT(product_error(in_order), 0.5 * product_error(there_and_back(type, in, k, plain)));
  EXPECT_NEAR(fit_rows(type, in.data(), 16, k, ordered, blocks.data()) / product_error(in_order), 1, 1e-3);
  const double plain_cost = error_of(there_and_back(type, in, k, plain), in, plain.squares);
  EXPECT_NEAR(fit_rows(type, in.data(), 16, k, plain, blocks.data()), plain_cost, 1e-9 * plain_cost);
  std::vector<float> singular(static_cast<size_t>(k * k));
  EXPECT_FALSE(factor_feedback(singular, k, 0));
}

TEST(Fit, FactorsMomentsOfAnySize) {
  for (const int64_t k : {1, 7, 48, 50, 99, 145}) {  // blocks of 48, tiles of 2 and 4, vectors of 4
    const auto size = static_cast<size_t>(k);
    const std::vector<float> x = normal(4 * size * size, 5);
    std::vector<float> moments(size * size);
    for (size_t r = 0; r < 4 * size; ++r)
      for (size_t i = 0; i < size; ++i)
        for (size_t j = 0; j < size; ++j) moments[i * size + j] += x[r * size + i] * x[r * size + j];
    std::vector<float> factor = moments;
    ASSERT_TRUE(factor_feedback(factor, k, 0.5));
    double mean = 0;
    for (size_t i = 0; i < size; ++i) mean += double{moments[i * size + i]} / static_cast<double>(k);
    for (size_t i = 0; i < size; ++i) moments[i * size + i] += static_cast<float>(0.5 * mean);
    // U times the moments times its transpose is the identity
    std::vector<double> product(size * size);
    for (size_t i = 0; i < size; ++i)
      for (size_t p = i; p < size; ++p)
        for (size_t j = 0; j < size; ++j)
          product[i * size + j] += double{factor[i * size + p]} * double{moments[p * size + j]};
    for (size_t i = 0; i < size; ++i)
      for (size_t j = 0; j < size; ++j) {
        double sum = 0;
        for (size_t p = j; p < size; ++p) sum += product[i * size + p] * double{factor[j * size + p]};
        ASSERT_NEAR(sum, i == j ? 1 : 0, 1e-5) << k << ": " << i << ", " << j;
        if (i > j) { ASSERT_EQ(factor[i * size + j], 0); }
      }
    moments[size * size - 1] = -1;
    EXPECT_FALSE(factor_feedback(moments, k, 0));
  }
}

TEST(Fit, RefusesWhatItCanNotHold) {
  const BlockType& type = *find_native_type("q4_g128");
  std::vector<std::byte> blocks(1024);
  std::vector<float> in(128, 1.0f);
  EXPECT_THROW(fit_rows(type, in.data(), 1, 64, {}, blocks.data()), Error);
  EXPECT_THROW(fit_rows(*find_block_type(17), in.data(), 1, 256, {}, blocks.data()), Error);
  EXPECT_THROW(fit_rows(type, in.data(), 1, 128, {.squares = {1, 2}, .feedback = {}, .order = {}}, blocks.data()),
               Error);
  in[5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(fit_rows(type, in.data(), 1, 128, {}, blocks.data()), Error);
  in[5] = 3e6f;
  EXPECT_THROW(fit_rows(type, in.data(), 1, 128, {}, blocks.data()), Error);
}

}  // namespace
}  // namespace nibble::quant
