// SPDX-License-Identifier: Apache-2.0
// OLMo 2 (arXiv 2501.00656): norms after attention and MLP instead of before, q and k normalized over all heads.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m);
  c.norm_eps = static_cast<float>(m.need_float("attention.layer_norm_rms_epsilon|rms_norm_eps", 1e-12, 1));
  return c;
}

Value block(Builder& b, Value x) {
  x = b.add(x, b.rms_norm(b.attention(x, {.qk_norm = Norm::rms, .qk_norm_rows = true}), "attn_post_norm"));
  return b.add(x, b.rms_norm(b.mlp_gated(x, Act::silu), "ffn_post_norm"));
}

Value head(Builder& b, Value x) { return b.logits(b.rms_norm(x, "output_norm")); }

}  // namespace

Arch olmo2_arch() {
  return {.name = "olmo2",
          .model_types = {"olmo2"},
          .examples = "OLMo 2",
          .config = config,
          .names = {{"embedding", "token_embd|model.embed_tokens"},
                    {"q", "blk.{}.attn_q|model.layers.{}.self_attn.q_proj"},
                    {"k", "blk.{}.attn_k|model.layers.{}.self_attn.k_proj"},
                    {"v", "blk.{}.attn_v|model.layers.{}.self_attn.v_proj"},
                    {"o", "blk.{}.attn_output|model.layers.{}.self_attn.o_proj"},
                    {"gate", "blk.{}.ffn_gate|model.layers.{}.mlp.gate_proj"},
                    {"up", "blk.{}.ffn_up|model.layers.{}.mlp.up_proj"},
                    {"down", "blk.{}.ffn_down|model.layers.{}.mlp.down_proj"},
                    {"output_norm", "output_norm|model.norm"},
                    {"output", "?output|lm_head"},
                    {"attn_post_norm", "blk.{}.post_attention_norm|model.layers.{}.post_attention_layernorm"},
                    {"ffn_post_norm", "blk.{}.post_ffw_norm|model.layers.{}.post_feedforward_layernorm"},
                    {"q_norm", "blk.{}.attn_q_norm|model.layers.{}.self_attn.q_norm"},
                    {"k_norm", "blk.{}.attn_k_norm|model.layers.{}.self_attn.k_norm"}},
          .block = block,
          .head = head};
}

}  // namespace nibble::models
