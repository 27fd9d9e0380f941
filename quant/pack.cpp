// SPDX-License-Identifier: Apache-2.0
// File blocks to panels: 16 blocks, one per column, are decoded to bytes and written as bit planes. Whole panels of the
// common types are packed by pack_avx2.cpp where the CPU can.
#include <algorithm>
#include <vector>

#include "quant/codes.h"
#include "quant/format.h"
#include "quant/pack_avx2.h"
#include "quant/panels.h"
#include "tensor/check.h"

namespace nibble::quant {

namespace {

using Columns = std::vector<BlockCodes>;

void write_column_scales(const QuantLayout& layout, const Columns& columns, float (BlockCodes::*field)[16], int group,
                         std::byte* out) {
  float values[panel_columns];
  const float unit = scale_unit(layout);
  for (int c = 0; c < panel_columns; ++c) values[c] = (columns[c].*field)[group] * unit;
  write_scales(layout.scale, values, out);
}

void write_multipliers(const Columns& columns, int8_t (BlockCodes::*field)[16], int group, std::byte* out) {
  for (int c = 0; c < panel_columns; ++c) out[c] = static_cast<std::byte>((columns[c].*field)[group]);
}

// The scales of one block of every column; `records` of them (super-blocks or groups), back to back.
void write_block_scales(const QuantLayout& layout, const Columns& columns, int records, std::byte* out) {
  const size_t line = panel_columns * element_bytes(layout.scale);
  const bool has_minimum = layout.zero_point == ZeroPoint::minimum;
  for (int r = 0; r < records; ++r) {
    write_column_scales(layout, columns, &BlockCodes::scale, r, out);
    out += line;
    if (has_minimum) {
      write_column_scales(layout, columns, &BlockCodes::minimum, r, out);
      out += line;
    }
    for (int g = 0; g < layout.sub_groups; ++g) {
      write_multipliers(columns, &BlockCodes::sub_scale, g, out);
      out += panel_columns;
      if (!has_minimum) continue;
      write_multipliers(columns, &BlockCodes::sub_minimum, g, out);
      out += panel_columns;
    }
  }
}

struct Packer {
  const BlockType& type;
  const QuantLayout& layout;
  PanelGeometry geometry;
  int64_t blocks_per_row;
  int records;  // groups, or super-blocks, whose scales one block holds
  PackPanel fast = nullptr;
  std::vector<BlockCodes> columns{panel_columns};

  size_t row_bytes() const { return static_cast<size_t>(blocks_per_row) * type.block_bytes; }

  void panel(const std::byte* source, int count, std::byte* out) {
    if (fast != nullptr && count == panel_columns) {
      fast(source, row_bytes(), blocks_per_row, out, out + geometry.scales_offset);
      const size_t used =
          static_cast<size_t>(blocks_per_row) * static_cast<size_t>(records) * geometry.scale_group_bytes;
      return std::fill(out + geometry.scales_offset + used, out + geometry.panel_bytes, std::byte{0});
    }
    std::fill(columns.begin() + count, columns.end(), BlockCodes{});  // columns beyond n have zero scales
    std::byte* codes = out;
    std::byte* scales = out + geometry.scales_offset;
    for (int64_t b = 0; b < blocks_per_row; ++b, source += type.block_bytes) {
      for (int c = 0; c < count; ++c) type.decode(source + static_cast<size_t>(c) * row_bytes(), columns[c]);
      for (int k = 0; k < type.block_elements; k += block_k, codes += geometry.code_block_bytes) {
        write_codes(layout.bits, columns[0].codes + k, sizeof(BlockCodes), codes);
      }
      write_block_scales(layout, columns, records, scales);
      scales += static_cast<size_t>(records) * geometry.scale_group_bytes;
    }
    std::fill(scales, out + geometry.panel_bytes, std::byte{0});
  }
};

}  // namespace

void pack_rows(const BlockType& type, const std::byte* blocks, int64_t n, int64_t k, int64_t row, int64_t rows,
               std::byte* packed) {
  const QuantLayout& layout = type.format->layout;
  const PanelGeometry geometry = panel_geometry(layout, n, k);
  check_rows("packed weight", n, k, row, rows);
  NIBBLE_CHECK(k % type.block_elements == 0, "weight (", n, ", ", k, ") of type ", type.name,
               ": k must be a multiple of its ", type.block_elements, " weights per block");
  const int per_record = geometry.group * std::max<int>(layout.sub_groups, 1);
  Packer packer{type, layout, geometry, k / type.block_elements,
                layout.bits == 0 ? 0 : type.block_elements / per_record, find_fast_packer(type)};
  for (int64_t begin = row; begin < row + rows; begin += panel_columns) {
    const int count = static_cast<int>(std::min<int64_t>(panel_columns, row + rows - begin));
    const std::byte* source = blocks + static_cast<size_t>(begin - row) * packer.row_bytes();
    std::byte* panel = packed + static_cast<size_t>(begin / panel_columns) * geometry.panel_bytes;
    if (layout.bits == 0) {
      write_floats(layout.scale, source, packer.row_bytes(), count, k, panel);
      std::fill(panel + geometry.scales_offset, panel + geometry.panel_bytes, std::byte{0});
    } else {
      packer.panel(source, count, panel);
    }
  }
}

void pack_codes(const QuantFormat& format, const NumberedRows& in, int64_t n, int64_t k, int64_t row, int64_t rows,
                std::byte* packed) {
  const QuantLayout& layout = format.layout;
  const PanelGeometry geometry = panel_geometry(layout, n, k);
  check_rows("packed weight", n, k, row, rows);
  NIBBLE_CHECK(layout.bits != 0 && layout.sub_groups == 0,
               "packing codes: expected a format of codes without sub-groups, found ", format.name);
  const auto stride = static_cast<size_t>(geometry.k_blocks * block_k), width = static_cast<size_t>(k);
  std::vector<uint8_t> codes(panel_columns * stride);
  std::vector<GroupScale> scales(static_cast<size_t>(panel_columns * geometry.groups));
  for (int64_t begin = row; begin < row + rows; begin += panel_columns) {
    const auto count = static_cast<size_t>(std::min<int64_t>(panel_columns, row + rows - begin)),
               first = static_cast<size_t>(begin - row);
    std::fill(codes.begin(), codes.end(), uint8_t{0});
    std::fill(scales.begin(), scales.end(), GroupScale{});
    for (size_t c = 0; c < count; ++c) {
      std::copy_n(in.codes + (first + c) * width, width, codes.data() + c * stride);
      for (size_t g = 0; g < static_cast<size_t>(geometry.groups); ++g) {
        const size_t at = (first + c) * static_cast<size_t>(geometry.groups) + g;
        GroupScale& s = scales[g * panel_columns + c];
        s.scale = in.scales[at];
        if (layout.zero_point == ZeroPoint::minimum) s.minimum = in.offsets[at];
        if (layout.zero_point == ZeroPoint::integer) s.zero = static_cast<uint8_t>(in.offsets[at]);
      }
    }
    write_panel(layout, geometry, codes.data(), stride, scales.data(),
                packed + static_cast<size_t>(begin / panel_columns) * geometry.panel_bytes);
  }
}

}  // namespace nibble::quant
