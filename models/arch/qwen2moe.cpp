// SPDX-License-Identifier: Apache-2.0
// Qwen 1.5 MoE and Qwen 2 MoE (arXiv 2407.10671): Qwen 2 with mixtures of experts, beside an expert that every token
// takes, weighted by a sigmoid of its own.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) { return read_config(m, {.experts = true}); }

Value block(Builder& b, Value x) {
  x = b.add(x, b.attention(b.rms_norm(x, "attn_norm")));
  return b.add(x, b.moe_or_mlp(b.rms_norm(x, "ffn_norm")));
}

}  // namespace

Arch qwen2moe_arch() {
  return {.name = "qwen2moe",
          .model_types = {"qwen2moe", "qwen2_moe"},
          .examples = "Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B",
          .config = config,
          .names = change_names(
              qwen3moe_arch().names,
              {{"q_norm", ""},
               {"k_norm", ""},
               {"shared_router", "?blk.{}.ffn_gate_inp_shexp#row|model.layers.{}.mlp.shared_expert_gate"},
               {"shared_gate", "?blk.{}.ffn_gate_shexp|model.layers.{}.mlp.shared_expert.gate_proj"},
               {"shared_up", "?blk.{}.ffn_up_shexp|model.layers.{}.mlp.shared_expert.up_proj"},
               {"shared_down", "?blk.{}.ffn_down_shexp|model.layers.{}.mlp.shared_expert.down_proj"}}),
          .block = block};
}

}  // namespace nibble::models
