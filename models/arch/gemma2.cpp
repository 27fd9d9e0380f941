// SPDX-License-Identifier: Apache-2.0
// Gemma 2 (arXiv 2408.00118): Gemma with norms also behind attention and MLP, soft caps, and a sliding window in
// every other layer.
#include <cmath>

#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.full_attention_every = 2, .act = Act::gelu_tanh});
  c.embedding_scale = std::sqrt(static_cast<float>(c.width));
  // GGUF files do not say query_pre_attn_scalar; it is the head size in all but the 27B models
  const double scalar = m.get_float("query_pre_attn_scalar", c.head_dim, 1e-6, 1e9);
  c.attention_scale = static_cast<float>(m.get_float("attention.scale", 1 / std::sqrt(scalar), 1e-9, 1e9));
  return c;
}

Value block(Builder& b, Value x) {
  x = b.add(x, b.rms_norm(b.attention(b.rms_norm(x, "attn_norm")), "attn_post_norm"));
  return b.add(x, b.rms_norm(b.mlp_gated(b.rms_norm(x, "ffn_norm"), b.config().act), "ffn_post_norm"));
}

}  // namespace

Arch gemma2_arch() {
  return {.name = "gemma2",
          .model_types = {"gemma2"},
          .examples = "Gemma 2 2B and 9B",
          .config = config,
          .names = llama_names(
              {{"attn_norm", "blk.{}.attn_norm|model.layers.{}.input_layernorm#plus_one"},
               {"ffn_norm", "blk.{}.ffn_norm|model.layers.{}.pre_feedforward_layernorm#plus_one"},
               {"output_norm", "output_norm|model.norm#plus_one"},
               {"attn_post_norm", "blk.{}.post_attention_norm|model.layers.{}.post_attention_layernorm#plus_one"},
               {"ffn_post_norm", "blk.{}.post_ffw_norm|model.layers.{}.post_feedforward_layernorm#plus_one"}}),
          .block = block};
}

}  // namespace nibble::models
