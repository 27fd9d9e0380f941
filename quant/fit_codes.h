// SPDX-License-Identifier: Apache-2.0
// quant/fit.h for weights whose codes, scales and zero points stand apart, and for scales of a whole row.
#pragma once

#include <cstdint>

#include "quant/fit.h"

namespace nibble::quant {

struct CodedTarget {
  /// Without sub_groups. group 0: the whole row. Of books of floats those of bitsandbytes and FP8.
  QuantLayout layout;
  float (*round_scale)(float) = nullptr;  ///< BlockType::round_scale
  int64_t group(int64_t k) const { return layout.group != 0 ? layout.group : k; }
  int64_t groups(int64_t k) const { return (k + group(k) - 1) / group(k); }
};

/// Rows (rows, k) as codes (rows, k) and for each group a scale and an offset (rows, groups): the minimum, or the zero
/// point, which is 2^(bits-1) where symmetric and 0 with a codebook. The last group of a row may be shorter. Scales are
/// exact in layout.scale and found as fit_rows finds them, those of FP8 from the largest magnitude. Returns and throws
/// what fit_rows does.
double fit_codes(const CodedTarget& target, const float* in, int64_t rows, int64_t k, const InputStatistics& inputs,
                 uint8_t* codes, float* scales, float* offsets, bool search = true);

}  // namespace nibble::quant
