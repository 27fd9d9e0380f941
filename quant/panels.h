// SPDX-License-Identifier: Apache-2.0
// Writing panels: what the file packer and the quantiser share. Private to quant/.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/format.h"

namespace nibble::quant {

/// Writes one code block: 32 codes of each of the 16 columns, column c at codes + c * stride.
void write_codes(int bits, const uint8_t* codes, size_t stride, std::byte* out);

/// 16 floats as `type`, rounded to nearest even.
void write_scales(DType type, const float* values, std::byte* out);

/// What panels store scales times: 1, but for books of floats.
inline float scale_unit(const QuantLayout& layout) {
  const FloatBook* book = float_book(layout.codebook);
  return book != nullptr ? book->unit : 1.0f;
}

/// What a layout without sub-groups stores beside the codes of a group, as numbers.
struct GroupScale {
  float scale = 0, minimum = 0;
  uint8_t zero = 0;
};
/// A whole panel without sub-groups: codes of column c at codes + c * stride, scales of group g at scales + 16 * g.
void write_panel(const QuantLayout& layout, const PanelGeometry& geometry, const uint8_t* codes, size_t stride,
                 const GroupScale* scales, std::byte* panel);

/// Element j of column c from rows + c * row_bytes; columns from `columns` on are zeros.
void write_floats(DType type, const std::byte* rows, size_t row_bytes, int columns, int64_t k, std::byte* out);

/// Checks a range of rows against the contract of pack_rows.
void check_rows(std::string_view what, int64_t n, int64_t k, int64_t row, int64_t rows);

}  // namespace nibble::quant
