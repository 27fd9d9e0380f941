// SPDX-License-Identifier: Apache-2.0
// StableLM (arXiv 2402.17834): partial rope, LayerNorm. The 12B kind has no second norm, as attention and MLP run in
// parallel, and a norm for each head of q and k.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.rotary_part = 0.25});
  c.norm_eps = static_cast<float>(m.get_float("attention.layer_norm_epsilon|layer_norm_eps|norm_eps", 1e-5, 1e-12, 1));
  return c;
}

Value block(Builder& b, Value x) {
  const Value n = b.layer_norm(x, "attn_norm");
  const Value attention = b.attention(n, {.qk_norm = Norm::layer});
  if (b.config().parallel_residual) return b.add(x, b.add(attention, b.mlp_gated(n, Act::silu)));
  x = b.add(x, attention);
  return b.add(x, b.mlp_gated(b.layer_norm(x, "ffn_norm"), Act::silu));
}

Value head(Builder& b, Value x) { return b.logits(b.layer_norm(x, "output_norm")); }

}  // namespace

Arch stablelm_arch() {
  return {.name = "stablelm",
          .model_types = {"stablelm", "stablelm_epoch"},
          .examples = "StableLM 3B, StableLM 2 1.6B and 12B",
          .config = config,
          .names = {{"embedding", "token_embd|model.embed_tokens"},
                    {"attn_norm", "blk.{}.attn_norm|model.layers.{}.input_layernorm"},
                    {"q", "blk.{}.attn_q|model.layers.{}.self_attn.q_proj"},
                    {"k", "blk.{}.attn_k|model.layers.{}.self_attn.k_proj"},
                    {"v", "blk.{}.attn_v|model.layers.{}.self_attn.v_proj"},
                    {"o", "blk.{}.attn_output|model.layers.{}.self_attn.o_proj"},
                    {"ffn_norm", "?blk.{}.ffn_norm|model.layers.{}.post_attention_layernorm"},
                    {"gate", "blk.{}.ffn_gate|model.layers.{}.mlp.gate_proj"},
                    {"up", "blk.{}.ffn_up|model.layers.{}.mlp.up_proj"},
                    {"down", "blk.{}.ffn_down|model.layers.{}.mlp.down_proj"},
                    {"output_norm", "output_norm|model.norm"},
                    {"output", "?output|lm_head"},
                    {"q_norm", "?blk.{}.attn_q_norm#experts|model.layers.{}.self_attn.q_layernorm.norms.{e}"},
                    {"k_norm", "?blk.{}.attn_k_norm#experts|model.layers.{}.self_attn.k_layernorm.norms.{e}"}},
          .block = block,
          .head = head};
}

}  // namespace nibble::models
