// SPDX-License-Identifier: Apache-2.0
// File blocks to panels and back, for every block type.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "quant/format.h"
#include "tensor/check.h"

namespace nibble::quant {
namespace {

constexpr int64_t row_counts[] = {1, 5, 16, 17, 40};

std::vector<const BlockType*> file_and_native_types() {
  std::vector<const BlockType*> types(all_block_types().begin(), all_block_types().end());
  types.insert(types.end(), native_block_types().begin(), native_block_types().end());
  return types;
}

// k of 1, 3 and 5 blocks, and for small blocks the awkward 160, 576 and 13.
std::vector<int64_t> widths(const BlockType& type) {
  std::vector<int64_t> k;
  const int64_t block = type.block_elements;
  for (int64_t value : {block, 3 * block, 5 * block, int64_t{160}, int64_t{576}, int64_t{13}}) {
    if (value % type.block_elements == 0) k.push_back(value);
  }
  return k;
}

// Random bytes, drawn again until every weight of the block is finite.
std::vector<std::byte> random_blocks(const BlockType& type, int64_t elements, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> blocks(static_cast<size_t>(elements / type.block_elements) * type.block_bytes);
  std::vector<float> values(static_cast<size_t>(type.block_elements));
  for (size_t at = 0; at < blocks.size(); at += type.block_bytes) {
    do {
      std::generate_n(blocks.begin() + static_cast<int64_t>(at), type.block_bytes,
                      [&] { return static_cast<std::byte>(random()); });
      dequantize_blocks(type, blocks.data() + at, type.block_elements, values.data());
    } while (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); }));
  }
  return blocks;
}

std::vector<std::byte> pack(const BlockType& type, const std::vector<std::byte>& blocks, int64_t n, int64_t k) {
  std::vector<std::byte> packed(type.format->bytes(*type.format, n, k), std::byte{0xa5});
  pack_rows(type, blocks.data(), n, k, 0, n, packed.data());
  return packed;
}

TEST(PackRows, PackedValuesEqualTheFilesValues) {
  for (const BlockType* type : file_and_native_types()) {
    for (int64_t n : row_counts) {
      for (int64_t k : widths(*type)) {
        const auto blocks = random_blocks(*type, n * k, 1);
        const auto packed = pack(*type, blocks, n, k);
        std::vector<float> want(static_cast<size_t>(n * k)), got(want.size());
        dequantize_blocks(*type, blocks.data(), n * k, want.data());
        type->format->dequantize(*type->format, packed.data(), n, k, 0, n, got.data());
        for (size_t i = 0; i < want.size(); ++i) {
          ASSERT_EQ(got[i], want[i]) << type->name << " (" << n << ", " << k << ") weight " << i;
        }
      }
    }
  }
}

// panel_code, panel_scale and panel_float are the other reader of the picture in quant/format.h.
TEST(PackRows, AgreesWithTheScalarPanelReader) {
  for (const BlockType* type : file_and_native_types()) {
    const QuantLayout& layout = type->format->layout;
    const int64_t n = 19, k = std::max(type->block_elements, 32) * 3;
    const auto blocks = random_blocks(*type, n * k, 2);
    const auto packed = pack(*type, blocks, n, k);
    const PanelGeometry geometry = panel_geometry(layout, n, k);
    std::vector<float> want(static_cast<size_t>(n * k));
    dequantize_blocks(*type, blocks.data(), n * k, want.data());
    for (int64_t i = 0; i < n; ++i) {
      const std::byte* panel = packed.data() + static_cast<size_t>(i / 16) * geometry.panel_bytes;
      const int column = static_cast<int>(i % 16);
      for (int64_t j = 0; j < k; ++j) {
        float got;
        if (layout.bits == 0) {
          got = panel_float(layout, panel, j, column);
        } else if (float_weights(layout)) {
          got = panel_weight(layout, geometry, panel, j, column);
        } else {
          const PanelScale s = panel_scale(layout, geometry, panel, j, column);
          const unsigned code = panel_code(layout, panel, j, column);
          got = layout.zero_point == ZeroPoint::symmetric ? s.scale * static_cast<float>(panel_number(layout, code))
                                                          : s.scale * static_cast<float>(code) + s.minimum;
        }
        ASSERT_EQ(got, want[static_cast<size_t>(i * k + j)]) << type->name << " (" << i << ", " << j << ")";
      }
    }
  }
}

TEST(PackRows, PiecesGiveTheSameBytes) {
  for (const BlockType* type : file_and_native_types()) {
    const int64_t n = 52, k = type->block_elements * 2;
    const auto blocks = random_blocks(*type, n * k, 3);
    const auto whole = pack(*type, blocks, n, k);
    std::vector<std::byte> pieces(whole.size(), std::byte{0x5a});
    const size_t row_bytes = static_cast<size_t>(k / type->block_elements) * type->block_bytes;
    const std::pair<int64_t, int64_t> ranges[] = {{48, 4}, {16, 32}, {0, 16}};
    for (auto [row, rows] : ranges) {
      pack_rows(*type, blocks.data() + static_cast<size_t>(row) * row_bytes, n, k, row, rows, pieces.data());
    }
    EXPECT_TRUE(whole == pieces) << type->name;
  }
}

TEST(PackRows, PaddedColumnsAreZero) {
  for (const BlockType* type : file_and_native_types()) {
    const int64_t n = 18, k = type->block_elements * 2;
    const auto packed = pack(*type, random_blocks(*type, n * k, 4), n, k);
    std::vector<float> values(static_cast<size_t>(32 * k), 1.0f);
    type->format->dequantize(*type->format, packed.data(), 32, k, n, 32 - n, values.data());
    for (size_t i = 0; i < static_cast<size_t>((32 - n) * k); ++i) ASSERT_EQ(values[i], 0.0f) << type->name << " " << i;
  }
}

TEST(PackRows, ReadsUnalignedBlocks) {
  for (const BlockType* type : file_and_native_types()) {
    const int64_t n = 16, k = type->block_elements * 2;
    const auto blocks = random_blocks(*type, n * k, 5);
    std::vector<std::byte> shifted(blocks.size() + 1);
    std::copy(blocks.begin(), blocks.end(), shifted.begin() + 1);
    std::vector<std::byte> packed(type->format->bytes(*type->format, n, k));
    pack_rows(*type, shifted.data() + 1, n, k, 0, n, packed.data());
    EXPECT_TRUE(packed == pack(*type, blocks, n, k)) << type->name;
  }
}

TEST(PackRows, DequantizesAnyRows) {
  for (const BlockType* type : file_and_native_types()) {
    const int64_t n = 37, k = type->block_elements;
    const auto packed = pack(*type, random_blocks(*type, n * k, 6), n, k);
    std::vector<float> all(static_cast<size_t>(n * k)), one(static_cast<size_t>(k));
    type->format->dequantize(*type->format, packed.data(), n, k, 0, n, all.data());
    for (int64_t row : {int64_t{0}, int64_t{15}, int64_t{16}, int64_t{36}}) {
      type->format->dequantize(*type->format, packed.data(), n, k, row, 1, one.data());
      EXPECT_TRUE(std::equal(one.begin(), one.end(), all.begin() + row * k)) << type->name << " row " << row;
    }
    EXPECT_THROW(type->format->dequantize(*type->format, packed.data(), n, k, n, 1, one.data()), Error);
  }
}

TEST(PackRows, RejectsBadRanges) {
  const BlockType& type = *find_block_type(2);
  std::vector<std::byte> blocks(64 * 18), packed(type.format->bytes(*type.format, 64, 32));
  EXPECT_THROW(pack_rows(type, blocks.data(), 64, 32, 8, 16, packed.data()), Error);
  EXPECT_THROW(pack_rows(type, blocks.data(), 64, 32, 0, 8, packed.data()), Error);
  EXPECT_THROW(pack_rows(type, blocks.data(), 64, 32, 48, 32, packed.data()), Error);
  EXPECT_THROW(pack_rows(type, blocks.data(), 64, 32, -16, 16, packed.data()), Error);
  EXPECT_THROW(pack_rows(type, blocks.data(), 64, 40, 0, 16, packed.data()), Error);
  EXPECT_THROW(pack_rows(*find_block_type(12), blocks.data(), 16, 128, 0, 16, packed.data()), Error);
}

}  // namespace
}  // namespace nibble::quant
