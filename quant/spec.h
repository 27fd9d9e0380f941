// SPDX-License-Identifier: Apache-2.0
// Weights described by what they are made of.
#pragma once

#include <string_view>

#include "quant/format.h"

namespace nibble::quant {

/// "int4:g128:sym:f16": int1 to int8, nf4 or fp4; groups of g16, g32, g64 or g128; sym or asym (integers only); scales in
/// f16, bf16 or f32. What is left out is g64, sym and f16. The block type of our own that is meant. Throws Error naming
/// the part that is not known and those that are.
const BlockType& type_of_spec(std::string_view spec);
/// The same as a layout, also fp8_e4m3 (a codebook of floats) and groups of a whole `row`, which fp8 has unless another is
/// given; asym has integer zero points. For files whose scales stand apart from the codes.
QuantLayout layout_of_spec(std::string_view spec);
/// Whether it is meant as one: it has a ':' or begins with "int" or "fp8".
bool looks_like_spec(std::string_view name);

}  // namespace nibble::quant
