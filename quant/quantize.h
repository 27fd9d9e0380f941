// SPDX-License-Identifier: Apache-2.0
// Weights of a file, quantised while they are packed.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/format.h"

namespace nibble::quant {

/// The same bytes as quantize_rows of the values of these rows, (rows, k) in `type`, one after the other; no more than
/// 16 rows are floats at a time. Same row rules and errors; also throws Error where k is no multiple of the type's
/// block.
void quantize_blocks(const QuantFormat& format, const BlockType& type, const std::byte* blocks, int64_t n, int64_t k,
                     int64_t row, int64_t rows, std::byte* packed);

}  // namespace nibble::quant
