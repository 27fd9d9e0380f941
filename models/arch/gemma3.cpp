// SPDX-License-Identifier: Apache-2.0
// Gemma 3 (arXiv 2503.19786), the text model: Gemma 2 with q and k normalized instead of soft caps, and five layers with the
// window and a rope base of their own for each without.
#include <cmath>

#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.full_attention_every = 6, .act = Act::gelu_tanh});
  c.norm_eps = static_cast<float>(m.need_float("attention.layer_norm_rms_epsilon|rms_norm_eps", 1e-12, 1));
  c.embedding_scale = std::sqrt(static_cast<float>(c.width));
  constexpr std::string_view local = "rope.freq_base_swa|rope_local_base_freq|rope_parameters.sliding_attention.rope_theta";
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

Value head(Builder& b, Value x) { return b.logits(b.rms_norm(x, "output_norm")); }

}  // namespace

Arch gemma3_arch() {
  return {.name = "gemma3",
          .model_types = {"gemma3", "gemma3_text"},
          .examples = "Gemma 3 270M to 12B",
          .config = config,
          .names = {{"embedding", "token_embd|model.embed_tokens"},
                    {"attn_norm", "blk.{}.attn_norm|model.layers.{}.input_layernorm#plus_one"},
                    {"q", "blk.{}.attn_q|model.layers.{}.self_attn.q_proj"},
                    {"k", "blk.{}.attn_k|model.layers.{}.self_attn.k_proj"},
                    {"v", "blk.{}.attn_v|model.layers.{}.self_attn.v_proj"},
                    {"o", "blk.{}.attn_output|model.layers.{}.self_attn.o_proj"},
                    {"ffn_norm", "blk.{}.ffn_norm|model.layers.{}.pre_feedforward_layernorm#plus_one"},
                    {"gate", "blk.{}.ffn_gate|model.layers.{}.mlp.gate_proj"},
                    {"up", "blk.{}.ffn_up|model.layers.{}.mlp.up_proj"},
                    {"down", "blk.{}.ffn_down|model.layers.{}.mlp.down_proj"},
                    {"output_norm", "output_norm|model.norm#plus_one"},
                    {"output", "?output|lm_head"},
                    {"attn_post_norm", "blk.{}.post_attention_norm|model.layers.{}.post_attention_layernorm#plus_one"},
                    {"ffn_post_norm", "blk.{}.post_ffw_norm|model.layers.{}.post_feedforward_layernorm#plus_one"},
                    {"q_norm", "blk.{}.attn_q_norm|model.layers.{}.self_attn.q_norm#plus_one"},
                    {"k_norm", "blk.{}.attn_k_norm|model.layers.{}.self_attn.k_norm#plus_one"}},
          .block = block,
          .head = head};
}

}  // namespace nibble::models
