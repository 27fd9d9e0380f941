// SPDX-License-Identifier: Apache-2.0
// Weights described by what they are made of.
#pragma once

#include <string>
#include <string_view>

#include "quant/format.h"

namespace nibble::quant {

/// "int4:g128:sym:f16": int1 to int8, nf4, fp4, fp8_e4m3 or fp8_e5m2; groups of g16, g32, g64, g128 or a whole `row`;
/// sym or asym (integers only); scales in f16, bf16, f32 or fp8. What is left out is g64 (of fp8 row), sym and f16. The
/// block type of our own that is meant, or for a row the type of quant/row_types.h. Throws Error naming the part that
/// is not known and those that are.
const BlockType& type_of_spec(std::string_view spec);
/// The same as a layout, for files whose scales stand apart from the codes: asym has integer zero points, and fp8 is no
/// scale.
QuantLayout layout_of_spec(std::string_view spec);
/// What layout_of_spec takes for a layout.
std::string spec_of(const QuantLayout& layout);
/// Whether it is meant as one: it has a ':' or begins with "int" or "fp8".
bool looks_like_spec(std::string_view name);

}  // namespace nibble::quant
