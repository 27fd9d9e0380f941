// SPDX-License-Identifier: Apache-2.0
// What each architecture can be loaded from, told by its definition and the readers: for `nibble --list` and README.
#pragma once

#include "models/arch.h"

namespace nibble::models {

struct Sources {
  bool gguf = false, folder = false;  ///< folder: of Hugging Face, floats
  bool gptq = false, awq = false;     ///< folders in these packings
};
Sources sources(const Arch& arch);

}  // namespace nibble::models
