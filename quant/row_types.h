// SPDX-License-Identifier: Apache-2.0
// One scale for a whole row, in block types of our own: every block of a row has the same scale and minimum.
#pragma once

#include <string_view>

#include "quant/format.h"

namespace nibble::quant {

/// "q4s_row", "q4z_row_bf16", "nf4_row", "e4m3_row": for a row of k weights what row_blocks says. Sizes are those of
/// the blocks of 128. Never the type of a tensor of a file. nullptr when unknown.
const BlockType* find_row_type(std::string_view name);
bool is_row_type(const BlockType& type);
/// The type with the largest blocks that divide k; nullptr: none does.
const BlockType* row_blocks(const BlockType& row_type, int64_t k);

}  // namespace nibble::quant
