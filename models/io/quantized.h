// SPDX-License-Identifier: Apache-2.0
// Quantised Hugging Face checkpoints: `quantization_config` names a scheme, and modules that have that scheme's tensors
// become matrices of codes. Which modules those are, the tensors say: modules left unquantised have a plain weight.
#pragma once

#include <string_view>
#include <vector>

#include "models/io/hf_folder.h"
#include "models/io/metadata.h"
#include "models/io/stored_tensor.h"

namespace nibble::models {

/// The folder's tensors, sorted by name, with one tensor "module.weight" (StoredTensor::coded) in place of the tensors
/// of each quantised module; its bias stays. Throws Error naming the file, the key or tensor, what was expected and
/// what was found.
std::vector<StoredTensor> join_quantized(const HfFolder& folder, const Metadata& config);

/// Whether `quantization_config.quant_method` may be this.
bool reads_quant_method(std::string_view method);

}  // namespace nibble::models
