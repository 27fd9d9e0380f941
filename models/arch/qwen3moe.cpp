// SPDX-License-Identifier: Apache-2.0
// Qwen 3 MoE (arXiv 2505.09388): Qwen 3 with mixtures of experts.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  return read_config(m, {.experts = true, .normalize_experts = m.source() == Metadata::Source::gguf});
}

Value block(Builder& b, Value x) {
  x = b.add(x, b.attention(b.rms_norm(x, "attn_norm"), {.qk_norm = Norm::rms}));
  return b.add(x, b.moe_or_mlp(b.rms_norm(x, "ffn_norm")));
}

}  // namespace

Arch qwen3moe_arch() {
  return {.name = "qwen3moe",
          .model_types = {"qwen3moe", "qwen3_moe"},
          .examples = "Qwen3-30B-A3B, Qwen3-235B-A22B",
          .config = config,
          .names = llama_names(
              {{"q_norm", "blk.{}.attn_q_norm|model.layers.{}.self_attn.q_norm"},
               {"k_norm", "blk.{}.attn_k_norm|model.layers.{}.self_attn.k_norm"},
               {"router", "?blk.{}.ffn_gate_inp|model.layers.{}.mlp.gate"},
               {"gate_experts", "?blk.{}.ffn_gate_exps#experts|model.layers.{}.mlp.experts.{e}.gate_proj"},
               {"up_experts", "?blk.{}.ffn_up_exps#experts|model.layers.{}.mlp.experts.{e}.up_proj"},
               {"down_experts", "?blk.{}.ffn_down_exps#experts|model.layers.{}.mlp.experts.{e}.down_proj"},
               {"gate", "?blk.{}.ffn_gate|model.layers.{}.mlp.gate_proj"},
               {"up", "?blk.{}.ffn_up|model.layers.{}.mlp.up_proj"},
               {"down", "?blk.{}.ffn_down|model.layers.{}.mlp.down_proj"}}),
          .block = block};
}

}  // namespace nibble::models
