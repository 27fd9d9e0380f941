// SPDX-License-Identifier: Apache-2.0
// Mistral 7B (arXiv 2310.06825): LLaMA with a sliding attention window (Config::window).
#include "models/arch.h"

namespace nibble::models {

Arch mistral_arch() {
  Arch a = llama_arch();
  a.name = "mistral";
  a.model_types = {"mistral"};
  a.base = "llama";  // converters to GGUF write Mistral files under general.architecture = llama
  a.examples = "Mistral 7B";
  a.proof = {};
  return a;
}

}  // namespace nibble::models
