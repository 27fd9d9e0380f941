// SPDX-License-Identifier: Apache-2.0
// Rows out of panels and out of file blocks, as floats. Both apply the same formula to the same codes and scales.
#include <algorithm>
#include <cstring>

#include "quant/formats/formats.h"
#include "quant/panels.h"
#include "tensor/check.h"

namespace nibble::quant {

namespace {

// The 32 codes of one column in one code block.
void read_codes(int bits, const std::byte* block, int column, uint8_t* codes) {
  uint32_t quads[8] = {};
  const std::byte* line = block + 4 * column;
  int shift = 0;
  for (const int width : {8, 4, 2, 1}) {
    if ((bits & width) == 0) continue;
    const int per_line = 8 / width;
    const uint32_t mask = 0x01010101u * ((1u << width) - 1);
    for (int i = 0; i < width; ++i, line += 64) {
      const auto four = load<uint32_t>(line);
      for (int s = 0; s < per_line; ++s) quads[per_line * i + s] |= (four >> (width * s) & mask) << shift;
    }
    shift += width;
  }
  std::memcpy(codes, quads, sizeof quads);
}

// w = (d * number of the code) + m, every operation in f32; m only exists with a minimum. `scale` as panels store it.
void apply(const QuantLayout& layout, const uint8_t* codes, int count, float scale, float minimum, int zero,
           float* out) {
  if (const FloatBook* floats = float_book(layout.codebook)) {
    for (int i = 0; i < count; ++i) out[i] = rounded_product(layout.product, floats->value(codes[i]) * scale);
  } else if (layout.codebook) {
    const int8_t* book = panel_codebook(layout.codebook).values;
    for (int i = 0; i < count; ++i) out[i] = scale * static_cast<float>(book[codes[i]]);
  } else if (layout.zero_point == ZeroPoint::minimum) {
    for (int i = 0; i < count; ++i) out[i] = scale * static_cast<float>(codes[i]) + minimum;
  } else {
    for (int i = 0; i < count; ++i) out[i] = scale * static_cast<float>(codes[i] - zero);
  }
}

void floats(DType type, const std::byte* from, int64_t count, int64_t stride, float* out) {
  switch (type) {
    case DType::f32:
      for (int64_t i = 0; i < count; ++i) out[i] = load<float>(from + 4 * i * stride);
      return;
    case DType::f16:
      for (int64_t i = 0; i < count; ++i) out[i] = load_f16(from + 2 * i * stride);
      return;
    default:
      for (int64_t i = 0; i < count; ++i) out[i] = bf16_to_f32(load<uint16_t>(from + 2 * i * stride));
  }
}

// One column of one panel.
void read_row(const QuantLayout& layout, const PanelGeometry& geometry, const std::byte* panel, int column, int64_t k,
              float* out) {
  const bool integer = layout.zero_point == ZeroPoint::integer;
  const size_t zeros_offset = geometry.scales_offset + panel_columns * element_bytes(layout.scale);
  const int64_t step = std::min(geometry.group, block_k);
  uint8_t codes[block_k];
  PanelScale scale;
  int zero = 1 << (layout.bits - 1);
  for (int64_t j = 0; j < k; j += step) {
    if (j % block_k == 0) {
      read_codes(layout.bits, panel + static_cast<size_t>(j / block_k) * geometry.code_block_bytes, column, codes);
    }
    if (j % geometry.group == 0) {
      scale = panel_scale(layout, geometry, panel, j, column);
      const size_t record = static_cast<size_t>(j / geometry.group) * geometry.scale_group_bytes;
      if (integer) zero = static_cast<int>(panel[zeros_offset + record + static_cast<size_t>(column)]);
    }
    apply(layout, codes + j % block_k, static_cast<int>(std::min(step, k - j)), scale.scale, scale.minimum, zero,
          out + j);
  }
}

}  // namespace

void dequantize_packed(const QuantFormat& format, const std::byte* data, int64_t n, int64_t k, int64_t row,
                       int64_t rows, float* out) {
  const QuantLayout& layout = format.layout;
  const PanelGeometry geometry = panel_geometry(layout, n, k);
  NIBBLE_CHECK(row >= 0 && rows >= 0 && row <= n && rows <= n - row, "weight (", n, ", ", k, ") in ", format.name,
               ": rows ", row, " to ", row + rows, " are outside");
  for (int64_t r = row; r < row + rows; ++r, out += k) {
    const std::byte* panel = data + static_cast<size_t>(r / panel_columns) * geometry.panel_bytes;
    const int column = static_cast<int>(r % panel_columns);
    if (layout.bits == 0) {
      floats(layout.scale, panel + static_cast<size_t>(column) * element_bytes(layout.scale), k, panel_columns, out);
    } else {
      read_row(layout, geometry, panel, column, k, out);
    }
  }
}

void dequantize_blocks(const BlockType& type, const std::byte* blocks, int64_t elements, float* out) {
  const QuantLayout& layout = type.format->layout;
  NIBBLE_CHECK(elements >= 0 && elements % type.block_elements == 0, elements, " weights of type ", type.name,
               ": expected a multiple of ", type.block_elements);
  if (layout.bits == 0) return floats(layout.scale, blocks, elements, 1, out);
  const int zero = 1 << (layout.bits - 1);
  const float unit = scale_unit(layout);
  BlockCodes block{};
  for (int64_t e = 0; e < elements; e += type.block_elements, blocks += type.block_bytes, out += type.block_elements) {
    type.decode(blocks, block);
    for (int g = 0; g * layout.group < type.block_elements; ++g) {
      const int s = layout.sub_groups ? 0 : g;
      const float scale = layout.sub_groups ? block.scale[s] * static_cast<float>(block.sub_scale[g]) : block.scale[s];
      const float minimum =
          layout.sub_groups ? block.minimum[s] * static_cast<float>(block.sub_minimum[g]) : block.minimum[s];
      apply(layout, block.codes + g * layout.group, layout.group, scale * unit, minimum, zero, out + g * layout.group);
    }
  }
}

}  // namespace nibble::quant
