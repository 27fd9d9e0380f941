// SPDX-License-Identifier: Apache-2.0
// Qwen 1.5, 2 and 2.5 (arXiv 2407.10671): LLaMA with biases in q, k and v; the upper layers may have a sliding window.
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
  x = b.add(x, b.attention(b.rms_norm(x, "attn_norm")));
  return b.add(x, b.mlp_gated(b.rms_norm(x, "ffn_norm"), Act::silu));
}

Value head(Builder& b, Value x) { return b.logits(b.rms_norm(x, "output_norm")); }

}  // namespace

Arch qwen2_arch() {
  return {.name = "qwen2",
          .model_types = {"qwen2"},
          .examples = "Qwen1.5, Qwen2, Qwen2.5",
          .config = config,
          .names = {{"embedding", "token_embd|model.embed_tokens"},
                    {"attn_norm", "blk.{}.attn_norm|model.layers.{}.input_layernorm"},
                    {"q", "blk.{}.attn_q|model.layers.{}.self_attn.q_proj"},
                    {"k", "blk.{}.attn_k|model.layers.{}.self_attn.k_proj"},
                    {"v", "blk.{}.attn_v|model.layers.{}.self_attn.v_proj"},
                    {"o", "blk.{}.attn_output|model.layers.{}.self_attn.o_proj"},
                    {"ffn_norm", "blk.{}.ffn_norm|model.layers.{}.post_attention_layernorm"},
                    {"gate", "blk.{}.ffn_gate|model.layers.{}.mlp.gate_proj"},
                    {"up", "blk.{}.ffn_up|model.layers.{}.mlp.up_proj"},
                    {"down", "blk.{}.ffn_down|model.layers.{}.mlp.down_proj"},
                    {"output_norm", "output_norm|model.norm"},
                    {"output", "?output|lm_head"}},
          .block = block,
          .head = head};
}

}  // namespace nibble::models
