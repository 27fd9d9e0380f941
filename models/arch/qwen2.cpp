// SPDX-License-Identifier: Apache-2.0
// Qwen 1.5, 2 and 2.5 (arXiv 2407.10671): LLaMA with biases in q, k and v; the upper layers may have a sliding window.
#include "models/arch.h"

namespace nibble::models {

Arch qwen2_arch() {
  return {.name = "qwen2",
          .model_types = {"qwen2"},
          .examples = "Qwen1.5, Qwen2, Qwen2.5",
          .names = llama_names()};
}

}  // namespace nibble::models
