// SPDX-License-Identifier: Apache-2.0
// MXFP4 as gpt-oss folders have it: X_blocks u8 (experts, n, k / 32, 16), two weights to a byte, the first in the low
// nibble, and X_scales u8 (experts, n, k / 32).
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "models/io/stored_tensor.h"

namespace nibble::models {

/// Makes of each X_blocks one tensor of that name, of type mxfp4 and shape (experts, n, k), with StoredTensor::scales;
/// X_scales go. Throws Error, beginning with `where`, for blocks whose scales are missing or have another shape.
void join_split_mxfp4(std::vector<StoredTensor>& tensors, const std::string& where);

/// Puts `count` blocks of 32 weights together as GGUF has them.
void join_mxfp4_blocks(const std::byte* blocks, const std::byte* scales, int64_t count, std::byte* out);

}  // namespace nibble::models
