// SPDX-License-Identifier: Apache-2.0
// Dynamic quantisation of activations: one f32 scale per row and activation group of k, int8 values of -127..127 or
// int16 values of -32767..32767, and the sums of the values over each weight group, which undo the offset of unsigned
// weight codes. An activation group is as long as the weights' groups, but at least 32: A = act_group(group) =
// max(32, group). docs/benchmarks.md has what that does to perplexity.
//
// Weights of up to 6 bits and codebooks read int8, whose error is below their own. Weights of 7 and 8 bits are kept by
// those who want no loss: they read int16, with which the activations' error vanishes. A group's int32 sum can't
// overflow: 128 codes of at most 255 give 128 * 255 * 32767 < 2^30, and the offset at most half of that beside it.
//
// Bytes of an (m, k) activation tensor, kp = k rounded up to 32, three regions, each 64-byte aligned:
//   int8 or int16 values  (m, kp)     zero padded
//   float scales  (m, ceil(k / A))
//   int32 sums    (m, ceil(k / group))   offset > 0: -offset * sum(q) per group;  offset == 0: float(sum(q)) as f32
//   bits
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/format.h"
#include "tensor/packed.h"
#include "tensor/panel.h"
#include "tensor/tensor.h"

namespace nibble::quant {

using nibble::act_format;
using nibble::act_needs_of;
using nibble::ActNeeds;
using nibble::quantize_act_row;

/// What the weights that will read the activations need. Throws Error for float weights.
ActNeeds act_needs(const QuantLayout& weights);

using ActGeometry = ActRegions;
ActGeometry act_geometry(const ActNeeds& needs, int64_t m, int64_t k);

}  // namespace nibble::quant
