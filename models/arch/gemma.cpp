// SPDX-License-Identifier: Apache-2.0
// Gemma (arXiv 2403.08295): embeddings times the root of the width, GELU in the gated MLP. Folders keep the norms
// minus one.
#include <cmath>

#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.act = Act::gelu_tanh});
  c.act = Act::gelu_tanh;  // whatever hidden_act says: transformers reads hidden_activation
  c.embedding_scale = std::sqrt(static_cast<float>(c.width));
  return c;
}

Value block(Builder& b, Value x) {
  x = b.add(x, b.attention(b.rms_norm(x, "attn_norm")));
  return b.add(x, b.mlp_gated(b.rms_norm(x, "ffn_norm"), b.config().act));
}

}  // namespace

Arch gemma_arch() {
  return {.name = "gemma",
          .model_types = {"gemma"},
          .examples = "Gemma 2B and 7B, CodeGemma",
          .config = config,
          .names = llama_names(
              {{"attn_norm", "blk.{}.attn_norm|model.layers.{}.input_layernorm#plus_one"},
               {"ffn_norm", "blk.{}.ffn_norm|model.layers.{}.post_attention_layernorm#plus_one"},
               {"output_norm", "output_norm|model.norm#plus_one"}}),
          .block = block};
}

}  // namespace nibble::models
