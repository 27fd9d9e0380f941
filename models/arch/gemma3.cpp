// SPDX-License-Identifier: Apache-2.0
// Gemma 3 (arXiv 2503.19786), the text model: Gemma 2 with q and k normalized instead of soft caps, and five layers
// with the window and a rope base of their own for each without.
#include <cmath>

#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.full_attention_every = 6, .act = Act::gelu_tanh});
  c.embedding_scale = std::sqrt(static_cast<float>(c.width));
  constexpr std::string_view local =
      "rope.freq_base_swa|rope_local_base_freq|rope_parameters.sliding_attention.rope_theta";
  c.local_rope_theta = static_cast<float>(m.get_float(local, 10000, 1, 1e12));
  // GGUF files do not say query_pre_attn_scalar; it is the head size in all but the 27B models
  const double scalar = m.get_float("query_pre_attn_scalar", c.head_dim, 1e-6, 1e9);
  c.attention_scale = static_cast<float>(m.get_float("attention.scale", 1 / std::sqrt(scalar), 1e-9, 1e9));
  return c;
}

Value block(Builder& b, Value x) {
  x = b.add(x, b.rms_norm(b.attention(b.rms_norm(x, "attn_norm"), {.qk_norm = Norm::rms}), "attn_post_norm"));
  return b.add(x, b.rms_norm(b.mlp_gated(b.rms_norm(x, "ffn_norm"), b.config().act), "ffn_post_norm"));
}

}  // namespace

Arch gemma3_arch() {
  return {.name = "gemma3",
          .model_types = {"gemma3", "gemma3_text"},
          .examples = "Gemma 3 270M to 12B",
          .config = config,
          .names = llama_names(
              {{"attn_norm", "blk.{}.attn_norm|model.layers.{}.input_layernorm#plus_one"},
               {"ffn_norm", "blk.{}.ffn_norm|model.layers.{}.pre_feedforward_layernorm#plus_one"},
               {"output_norm", "output_norm|model.norm#plus_one"},
               {"attn_post_norm", "blk.{}.post_attention_norm|model.layers.{}.post_attention_layernorm#plus_one"},
               {"ffn_post_norm", "blk.{}.post_ffw_norm|model.layers.{}.post_feedforward_layernorm#plus_one"},
               {"q_norm", "blk.{}.attn_q_norm|model.layers.{}.self_attn.q_norm#plus_one"},
               {"k_norm", "blk.{}.attn_k_norm|model.layers.{}.self_attn.k_norm#plus_one"}}),
          .block = block};
}

}  // namespace nibble::models
