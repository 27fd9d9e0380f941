// SPDX-License-Identifier: Apache-2.0
// Gemma 2 (arXiv 2408.00118): Gemma with norms also behind attention and MLP, soft caps, and a sliding window in every other
// layer.
#include <cmath>

#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.full_attention_every = 2, .act = Act::gelu_tanh});
  c.norm_eps = static_cast<float>(m.need_float("attention.layer_norm_rms_epsilon|rms_norm_eps", 1e-12, 1));
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

Value head(Builder& b, Value x) { return b.logits(b.rms_norm(x, "output_norm")); }

}  // namespace

Arch gemma2_arch() {
  return {.name = "gemma2",
          .model_types = {"gemma2"},
          .examples = "Gemma 2 2B and 9B",
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
                    {"ffn_post_norm", "blk.{}.post_ffw_norm|model.layers.{}.post_feedforward_layernorm#plus_one"}},
          .block = block,
          .head = head};
}

}  // namespace nibble::models
