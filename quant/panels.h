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

/// Element j of column c from rows + c * row_bytes; columns from `columns` on are zeros.
void write_floats(DType type, const std::byte* rows, size_t row_bytes, int columns, int64_t k, std::byte* out);

/// Checks a range of rows against the contract of pack_rows.
void check_rows(std::string_view what, int64_t n, int64_t k, int64_t row, int64_t rows);

}  // namespace nibble::quant
