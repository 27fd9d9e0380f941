// SPDX-License-Identifier: Apache-2.0
// Which architecture a file has, and what each can be loaded from, told by its definition and the readers: for
// `nibble --list` and README.
#pragma once

#include <string_view>

#include "models/arch.h"

namespace nibble::models {

struct Sources {
  bool gguf = false, folder = false;  ///< folder: of Hugging Face, floats
  bool gptq = false, awq = false;     ///< folders in these packings
};
Sources sources(const Arch& arch);

/// Where a file says it: general.architecture, or model_type.
std::string_view architecture_key(const Metadata& metadata);
/// The architecture of a file, or the variant that claims it. Throws Error naming the key.
const Arch& arch_of(const Metadata& metadata);

}  // namespace nibble::models
