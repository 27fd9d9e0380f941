// SPDX-License-Identifier: Apache-2.0
// gpt-oss (arXiv 2508.10925): every other layer sees a window; each head has a sink; mixtures of experts with biases and a
// clamped SwiGLU. YaRN's ramp is not rounded to whole pairs.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.full_attention_every = 2, .experts = true, .normalize_experts = true});
  c.norm_eps = static_cast<float>(m.need_float("attention.layer_norm_rms_epsilon|rms_norm_eps", 1e-12, 1));
  c.experts.clamp_limit = static_cast<float>(m.get_float("swiglu_limit", 7, 1e-3, 1e6));
  c.experts.clamp_alpha = static_cast<float>(m.get_float("swiglu_alpha", 1.702, 1e-3, 1e3));
  if (m.source() == Metadata::Source::gguf) c.rope_scaling.truncate = false;
  return c;
}

Value block(Builder& b, Value x) {
  x = b.add(x, b.attention(b.rms_norm(x, "attn_norm")));
  return b.add(x, b.moe(b.rms_norm(x, "ffn_norm")));
}

Value head(Builder& b, Value x) { return b.logits(b.rms_norm(x, "output_norm")); }

}  // namespace

Arch gptoss_arch() {
  return {.name = "gptoss",
          .model_types = {"gpt-oss", "gpt_oss"},
          .examples = "gpt-oss 20B and 120B",
          .config = config,
          .names = {{"embedding", "token_embd|model.embed_tokens"},
                    {"attn_norm", "blk.{}.attn_norm|model.layers.{}.input_layernorm"},
                    {"q", "blk.{}.attn_q|model.layers.{}.self_attn.q_proj"},
                    {"k", "blk.{}.attn_k|model.layers.{}.self_attn.k_proj"},
                    {"v", "blk.{}.attn_v|model.layers.{}.self_attn.v_proj"},
                    {"o", "blk.{}.attn_output|model.layers.{}.self_attn.o_proj"},
                    {"sinks", "blk.{}.attn_sinks|=model.layers.{}.self_attn.sinks"},
                    {"ffn_norm", "blk.{}.post_attention_norm|model.layers.{}.post_attention_layernorm"},
                    {"router", "blk.{}.ffn_gate_inp|model.layers.{}.mlp.router"},
                    {"gate_experts", "blk.{}.ffn_gate_exps#experts|=model.layers.{}.mlp.experts.gate_up_proj#experts,transpose,even"},
                    {"up_experts", "blk.{}.ffn_up_exps#experts|=model.layers.{}.mlp.experts.gate_up_proj#experts,transpose,odd"},
                    {"down_experts", "blk.{}.ffn_down_exps#experts|=model.layers.{}.mlp.experts.down_proj#experts,transpose"},
                    {"output_norm", "output_norm|model.norm"},
                    {"output", "?output|lm_head"}},
          .block = block,
          .head = head};
}

}  // namespace nibble::models
