// SPDX-License-Identifier: Apache-2.0
// Dynamic int8 quantisation of activations: one f32 scale per row and activation group of k, values -127..127, and the
// sums of the values over each weight group, which undo the offset of unsigned weight codes. An activation group is as
// long as the weights' groups, but at least 32: A = act_group(group) = max(32, group).
// docs/benchmarks.md has what that does to perplexity.
//
// Bytes of an (m, k) activation tensor, kp = k rounded up to 32, three regions, each 64-byte aligned:
//   int8  values  (m, kp)             zero padded
//   float scales  (m, ceil(k / A))
//   int32 sums    (m, ceil(k / group))   offset > 0: -offset * sum(q) per group;  offset == 0: float(sum(q)) as f32 bits
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/format.h"
#include "tensor/packed.h"
#include "tensor/panel.h"
#include "tensor/tensor.h"

namespace nibble::quant {

/// What the weights that will read the activations need.
struct ActNeeds {
  int group = 32;   ///< 16, 32, 64 or 128
  int offset = 8;   ///< zero point of symmetric codes (2^(bits-1), or 128 with a codebook); 0 = float sums
  bool operator==(const ActNeeds&) const = default;
};
ActNeeds act_needs(const QuantLayout& weights);

/// The QuantFormat ("act_g32_z8") that describes such activations; static, one per ActNeeds.
const QuantFormat& act_format(const ActNeeds& needs);
/// Inverse of act_format; throws Error if the format is not an activation format.
ActNeeds act_needs_of(const QuantFormat& format);

using ActGeometry = ActRegions;
ActGeometry act_geometry(const ActNeeds& needs, int64_t m, int64_t k);

/// Scalar reference: row i of x (k floats) into row i of the activation tensor at `out` of m rows, by the exact
/// arithmetic of nibble::quantize_act_row (tensor/panel.h). Every kernel must give the same bits.
void quantize_act_row(const ActNeeds& needs, const float* x, int64_t m, int64_t k, int64_t i, std::byte* out);

}  // namespace nibble::quant
