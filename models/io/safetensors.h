// SPDX-License-Identifier: Apache-2.0
// Reader of a .safetensors file (github.com/huggingface/safetensors): an 8-byte length, a JSON header, the data. The
// header is untrusted: every tensor must lie in the data, as long as its shape and type say, and together they must
// cover it without holes or overlaps.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "models/io/stored_tensor.h"
#include "tensor/buffer.h"

namespace nibble::models {

/// The tensors of a mapped file, in the order of their names, with offsets in the file; `index` becomes
/// StoredTensor::file. Throws Error naming the file, the tensor, what was expected and what was found. The leading
/// dimensions of a tensor of more than four are multiplied into one.
std::vector<StoredTensor> read_safetensors(const MappedFile& file, size_t index);

}  // namespace nibble::models
