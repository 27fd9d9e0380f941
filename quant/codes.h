// SPDX-License-Identifier: Apache-2.0
// Weights that come as numbers (codes, scales, zero points) instead of file blocks, into panels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/format.h"

namespace nibble::quant {

/// The format of a layout of 1 to 8 bits in groups of 16 to 128, without codebook and sub-groups, or with a codebook of
/// floats: those that checkpoints need but that have no line in the list are made of their layout. Throws Error for
/// other layouts.
const QuantFormat& format_of(const QuantLayout& layout);

/// Rows as numbers, each array row after row; a group is one stored group of the format (PanelGeometry).
struct NumberedRows {
  const uint8_t* codes;          ///< (rows, k)
  const float* scales;           ///< (rows, groups), exact in layout.scale
  const float* offsets;          ///< (rows, groups): minima, or zero points; not read when symmetric
};
/// Packs such rows, of a format of codes without sub_groups. Same row rules as pack_rows.
void pack_codes(const QuantFormat& format, const NumberedRows& in, int64_t n, int64_t k, int64_t row, int64_t rows,
                std::byte* packed);

/// Floats (rows, k) to such numbers by quantize_rows' rule, for a layout without minima, codebooks of integers and
/// sub_groups; scales are exact in layout.scale, groups are layout.group (0: k) long and divide k. Throws Error for
/// weights that are not finite and scales beyond their type.
void quantize_numbers(const QuantLayout& layout, const float* in, int64_t rows, int64_t k, uint8_t* codes,
                      float* scales, float* offsets);

/// The code whose value times FloatBook::unit is nearest to x, of the two nearest the even one; never that of NaN or an
/// infinity.
uint8_t nearest_code(const FloatBook& book, float x);

}  // namespace nibble::quant
