// SPDX-License-Identifier: Apache-2.0
// gpt-oss (arXiv 2508.10925): every other layer sees a window; each head has a sink; mixtures of experts with biases
// and a clamped SwiGLU. YaRN's ramp is not rounded to whole pairs.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.full_attention_every = 2, .experts = true, .normalize_experts = true});
  c.experts.clamp_limit = static_cast<float>(m.get_float("swiglu_limit", 7, 1e-3, 1e6));
  c.experts.clamp_alpha = static_cast<float>(m.get_float("swiglu_alpha", 1.702, 1e-3, 1e3));
  if (m.source() == Metadata::Source::gguf) c.rope_scaling.truncate = false;
  return c;
}

Value block(Builder& b, Value x) {
  x = b.add(x, b.attention(b.rms_norm(x, "attn_norm")));
  return b.add(x, b.moe(b.rms_norm(x, "ffn_norm")));
}

}  // namespace

Arch gptoss_arch() {
  return {.name = "gptoss",
          .model_types = {"gpt-oss", "gpt_oss"},
          .examples = "gpt-oss 20B and 120B",
          .config = config,
          .names = llama_names(
              {{"sinks", "blk.{}.attn_sinks|=model.layers.{}.self_attn.sinks"},
               {"ffn_norm", "blk.{}.post_attention_norm|model.layers.{}.post_attention_layernorm"},
               {"router", "blk.{}.ffn_gate_inp|model.layers.{}.mlp.router"},
               {"gate_experts",
                "blk.{}.ffn_gate_exps#experts"
                "|=model.layers.{}.mlp.experts.gate_up_proj#experts,transpose,even"
                "|=model.layers.{}.mlp.experts.gate_up_proj_blocks#experts,even"},
               {"up_experts",
                "blk.{}.ffn_up_exps#experts"
                "|=model.layers.{}.mlp.experts.gate_up_proj#experts,transpose,odd"
                "|=model.layers.{}.mlp.experts.gate_up_proj_blocks#experts,odd"},
               {"down_experts",
                "blk.{}.ffn_down_exps#experts"
                "|=model.layers.{}.mlp.experts.down_proj#experts,transpose"
                "|=model.layers.{}.mlp.experts.down_proj_blocks#experts"},
               {"gate", ""},
               {"up", ""},
               {"down", ""}}),
          .block = block};
}

}  // namespace nibble::models
