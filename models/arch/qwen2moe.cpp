// SPDX-License-Identifier: Apache-2.0
// Qwen 1.5 MoE and Qwen 2 MoE (arXiv 2407.10671): Qwen 2 with mixtures of experts, beside an expert that every token takes,
// weighted by a sigmoid of its own.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.experts = true});
  c.norm_eps = static_cast<float>(m.need_float("attention.layer_norm_rms_epsilon|rms_norm_eps", 1e-12, 1));
  return c;
}

Value block(Builder& b, Value x) {
  x = b.add(x, b.attention(b.rms_norm(x, "attn_norm")));
  return b.add(x, b.moe_or_mlp(b.rms_norm(x, "ffn_norm")));
}

Value head(Builder& b, Value x) { return b.logits(b.rms_norm(x, "output_norm")); }

}  // namespace

Arch qwen2moe_arch() {
  return {.name = "qwen2moe",
          .model_types = {"qwen2moe", "qwen2_moe"},
          .examples = "Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B",
          .config = config,
          .names = {{"embedding", "token_embd|model.embed_tokens"},
                    {"attn_norm", "blk.{}.attn_norm|model.layers.{}.input_layernorm"},
                    {"q", "blk.{}.attn_q|model.layers.{}.self_attn.q_proj"},
                    {"k", "blk.{}.attn_k|model.layers.{}.self_attn.k_proj"},
                    {"v", "blk.{}.attn_v|model.layers.{}.self_attn.v_proj"},
                    {"o", "blk.{}.attn_output|model.layers.{}.self_attn.o_proj"},
                    {"ffn_norm", "blk.{}.ffn_norm|model.layers.{}.post_attention_layernorm"},
                    {"router", "?blk.{}.ffn_gate_inp|model.layers.{}.mlp.gate"},
                    {"gate_experts", "?blk.{}.ffn_gate_exps#experts|model.layers.{}.mlp.experts.{e}.gate_proj"},
                    {"up_experts", "?blk.{}.ffn_up_exps#experts|model.layers.{}.mlp.experts.{e}.up_proj"},
                    {"down_experts", "?blk.{}.ffn_down_exps#experts|model.layers.{}.mlp.experts.{e}.down_proj"},
                    {"shared_router", "?blk.{}.ffn_gate_inp_shexp#row|model.layers.{}.mlp.shared_expert_gate"},
                    {"shared_gate", "?blk.{}.ffn_gate_shexp|model.layers.{}.mlp.shared_expert.gate_proj"},
                    {"shared_up", "?blk.{}.ffn_up_shexp|model.layers.{}.mlp.shared_expert.up_proj"},
                    {"shared_down", "?blk.{}.ffn_down_shexp|model.layers.{}.mlp.shared_expert.down_proj"},
                    {"gate", "?blk.{}.ffn_gate|model.layers.{}.mlp.gate_proj"},
                    {"up", "?blk.{}.ffn_up|model.layers.{}.mlp.up_proj"},
                    {"down", "?blk.{}.ffn_down|model.layers.{}.mlp.down_proj"},
                    {"output_norm", "output_norm|model.norm"},
                    {"output", "?output|lm_head"}},
          .block = block,
          .head = head};
}

}  // namespace nibble::models
