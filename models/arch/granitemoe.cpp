// SPDX-License-Identifier: Apache-2.0
// Granite 3 MoE: Granite's multipliers around mixtures of experts, whose weights are a softmax over the chosen ones.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.reordered_in_gguf = true, .experts = true, .normalize_experts = true});
  const auto factor = [&](std::string_view keys) { return static_cast<float>(m.get_float(keys, 1, 1e-9, 1e9)); };
  c.embedding_scale = factor("embedding_scale|embedding_multiplier");
  c.residual_scale = factor("residual_scale|residual_multiplier");
  c.attention_scale = factor("attention.scale|attention_multiplier");
  c.logit_scale = 1 / factor("logit_scale|logits_scaling");
  return c;
}

Value block(Builder& b, Value x) {
  const float scale = b.config().residual_scale;
  x = b.add(x, b.scale(b.attention(b.rms_norm(x, "attn_norm")), scale));
  return b.add(x, b.scale(b.moe(b.rms_norm(x, "ffn_norm")), scale));
}

}  // namespace

Arch granitemoe_arch() {
  return {.name = "granitemoe",
          .model_types = {"granitemoe"},
          .examples = "Granite 3 1B-A400M and 3B-A800M",
          .config = config,
          .names = llama_names(
              {{"router", "blk.{}.ffn_gate_inp|model.layers.{}.block_sparse_moe.router.layer"},
               {"gate_experts",
                "blk.{}.ffn_gate_exps#experts|model.layers.{}.block_sparse_moe.input_linear#experts,first_half"},
               {"up_experts",
                "blk.{}.ffn_up_exps#experts|model.layers.{}.block_sparse_moe.input_linear#experts,second_half"},
               {"down_experts", "blk.{}.ffn_down_exps#experts|model.layers.{}.block_sparse_moe.output_linear#experts"},
               {"gate", ""},
               {"up", ""},
               {"down", ""}}),
          .block = block};
}

}  // namespace nibble::models
