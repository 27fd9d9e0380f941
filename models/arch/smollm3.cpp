// SPDX-License-Identifier: Apache-2.0
// SmolLM3: LLaMA in which each fourth layer has no rope.
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.reordered_in_gguf = true});
  const auto interval = static_cast<int>(m.get_int("no_rope_layer_interval", 4, 1, 1 << 20));
  c.no_rope = read_layers(m, "no_rope_layers", c.layers, interval);
  c.no_rope.flip();  // the list says which layers do have it
  return c;
}

}  // namespace

Arch smollm3_arch() {
  return {.name = "smollm3",
          .model_types = {"smollm3"},
          .examples = "SmolLM3",
          .config = config,
          .names = llama_names()};
}

}  // namespace nibble::models
