// SPDX-License-Identifier: Apache-2.0
// quantize_blocks: whole panels, which vector code makes where the CPU can, hold what each of their rows gives alone,
// which plain loops make.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "quant/format.h"
#include "quant/quantize.h"
#include "tensor/check.h"

namespace nibble::quant {
namespace {

const BlockType& type_named(std::string_view name) {
  for (const BlockType* type : all_block_types())
    if (type->name == name) return *type;
  fail("no type ", name);
}

std::vector<std::byte> stored(const BlockType& type, const std::vector<float>& values) {
  std::vector<std::byte> bytes(values.size() * type.block_bytes);
  for (size_t i = 0; i < values.size(); ++i) {
    std::byte* out = bytes.data() + i * type.block_bytes;
    const uint16_t half = type.name == "f16" ? f32_to_f16(values[i]) : f32_to_bf16(values[i]);
    std::memcpy(out, type.name == "f32" ? static_cast<const void*>(&values[i]) : &half, type.block_bytes);
  }
  return bytes;
}

/// Rows of one kind after the other: what rounds in its own way.
std::vector<float> weights(int64_t rows, int64_t k, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 0.05f);
  std::vector<float> w;
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < k; ++j) {
      const float x = normal(random);
      switch (i % 8) {
        case 0: w.push_back(x); break;
        case 1: w.push_back(random() % 30 == 0 ? x * 200 : x); break;
        case 2: w.push_back(static_cast<float>(static_cast<int>(random() % 33) - 16) / 2); break;  // ties
        case 3: w.push_back(static_cast<float>(static_cast<int>(random() % 513) - 256) * 0x1p-9f); break;
        case 4: w.push_back(x * 1e-6f); break;  // subnormal scales, or none
        case 5: w.push_back(random() % 2 == 0 ? 0.0f : -0.0f); break;
        case 6: w.push_back(random() % 3 == 0 ? -0.0f : std::fabs(x)); break;
        default: w.push_back(x * 1e4f - 300); break;
      }
    }
  return w;
}

class QuantizeBlocks : public testing::TestWithParam<const char*> {};

TEST_P(QuantizeBlocks, AreThoseOfEachRowAlone) {
  const BlockType& type = type_named(GetParam());
  for (const QuantFormat* format : all_formats()) {
    const QuantLayout& l = format->layout;
    if (l.sub_groups || l.bits == 0) continue;
    const int64_t n = 37, unit = std::max<int64_t>(32, l.group);
    for (const int64_t k : {unit, 3 * unit, 5 * unit}) {
      const std::vector<std::byte> in = stored(type, weights(n, k, static_cast<unsigned>(k)));
      const size_t row_bytes = in.size() / static_cast<size_t>(n);
      std::vector<std::byte> all(format->bytes(*format, n, k)), one(format->bytes(*format, 1, k));
      quantize_blocks(*format, type, in.data(), n, k, 0, n, all.data());
      const PanelGeometry g = panel_geometry(l, n, k);
      for (int64_t i = 0; i < n; ++i) {
        quantize_blocks(*format, type, in.data() + static_cast<size_t>(i) * row_bytes, 1, k, 0, 1, one.data());
        const std::byte* panel = all.data() + static_cast<size_t>(i / panel_columns) * g.panel_bytes;
        const int column = static_cast<int>(i % panel_columns);
        for (int64_t j = 0; j < k; ++j) {
          ASSERT_EQ(panel_code(l, panel, j, column), panel_code(l, one.data(), j, 0))
              << format->name << " from " << type.name << " of " << k << " weight (" << i << ", " << j << ")";
          const PanelScale got = panel_scale(l, g, panel, j, column);
          const PanelScale want = panel_scale(l, panel_geometry(l, 1, k), one.data(), j, 0);
          const auto bits = [](float x) { return std::bit_cast<uint32_t>(x); };
          ASSERT_EQ(bits(got.scale), bits(want.scale)) << format->name << " row " << i << " of " << k;
          ASSERT_EQ(bits(got.minimum), bits(want.minimum)) << format->name << " row " << i << " of " << k;
        }
      }
    }
  }
}

TEST_P(QuantizeBlocks, AreThoseOfTheirFloats) {
  const BlockType& type = type_named(GetParam());
  for (const QuantFormat* format : all_formats()) {
    if (format->layout.sub_groups) continue;
    const int64_t n = 37, k = 128;
    const std::vector<std::byte> in = stored(type, weights(n, k, 5));
    std::vector<float> floats(static_cast<size_t>(n * k));
    dequantize_blocks(type, in.data(), n * k, floats.data());
    std::vector<std::byte> got(format->bytes(*format, n, k), std::byte{1}), want(got.size(), std::byte{2});
    quantize_blocks(*format, type, in.data(), n, k, 0, n, got.data());
    quantize_rows(*format, floats.data(), n, k, 0, n, want.data());
    EXPECT_TRUE(got == want) << format->name;
  }
}

TEST_P(QuantizeBlocks, NamesTheWeightThatIsNotFinite) {
  const BlockType& type = type_named(GetParam());
  const int64_t n = 32, k = 64;
  constexpr float infinity = std::numeric_limits<float>::infinity();
  for (const char* name : {"q4s_g32", "q4s_g16", "q8z_g32", "q4i_g128", "q8s_row"})
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), infinity, -infinity})
      for (const int64_t at : {0, 31, 63}) {
        const QuantFormat& format = find_format(name);
        const int64_t width = std::max<int64_t>(k, format.layout.group);
        std::vector<float> w = weights(n, width, 2);
        w[static_cast<size_t>(20 * width + at)] = bad;
        std::vector<std::byte> packed(format.bytes(format, n, width));
        try {
          quantize_blocks(format, type, stored(type, w).data(), n, width, 0, n, packed.data());
          ADD_FAILURE() << name << " took " << bad;
        } catch (const Error& error) {
          const std::string weight = message("weight (20, ", at, ") is ");
          EXPECT_NE(std::string(error.what()).find(weight), std::string::npos) << error.what();
        }
      }
}

INSTANTIATE_TEST_SUITE_P(Floats, QuantizeBlocks, testing::Values("f32", "f16", "bf16"));

TEST(QuantizeBlocksOfCodes, AreThoseOfTheirFloats) {
  const BlockType& type = type_named("q8_0");
  const int64_t n = 18, k = 64;
  const std::vector<float> w = weights(n, k, 1);
  std::vector<std::byte> in(w.size() / 32 * type.block_bytes);
  for (size_t i = 0; i < w.size() / 32; ++i) type.encode(w.data() + 32 * i, in.data() + i * type.block_bytes);
  std::vector<float> floats(w.size());
  dequantize_blocks(type, in.data(), n * k, floats.data());
  const QuantFormat& format = find_format("q4s_g32");
  std::vector<std::byte> got(format.bytes(format, n, k)), want(got.size());
  quantize_blocks(format, type, in.data(), n, k, 0, n, got.data());
  quantize_rows(format, floats.data(), n, k, 0, n, want.data());
  EXPECT_TRUE(got == want);
  EXPECT_THROW(quantize_blocks(format, type, in.data(), n, 48, 0, n, got.data()), Error);
}

}  // namespace
}  // namespace nibble::quant
