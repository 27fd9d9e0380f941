// SPDX-License-Identifier: Apache-2.0
// Mixtral (arXiv 2401.04088): Mistral with a mixture of experts in every layer. Converters to GGUF write it under
// llama, so files of llama with experts are this architecture too.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  return read_config(m, {.reordered_in_gguf = true, .experts = true, .normalize_experts = true});
}

Value block(Builder& b, Value x) {
  x = b.add(x, b.attention(b.rms_norm(x, "attn_norm")));
  return b.add(x, b.moe(b.rms_norm(x, "ffn_norm")));
}

}  // namespace

Arch mixtral_arch() {
  return {.name = "mixtral",
          .model_types = {"mixtral"},
          .examples = "Mixtral 8x7B, 8x22B",
          .base = "llama",
          .claims = [](const Metadata& m) { return m.get_int("expert_count", 0, 0, 1 << 20) > 0; },
          .config = config,
          .names = llama_names(
              {{"router", "blk.{}.ffn_gate_inp|model.layers.{}.block_sparse_moe.gate"},
               {"gate_experts",
                "blk.{}.ffn_gate_exps#experts|blk.{}.ffn_gate.{e}"
                "|model.layers.{}.block_sparse_moe.experts.{e}.w1"},
               {"up_experts",
                "blk.{}.ffn_up_exps#experts|blk.{}.ffn_up.{e}"
                "|model.layers.{}.block_sparse_moe.experts.{e}.w3"},
               {"down_experts",
                "blk.{}.ffn_down_exps#experts|blk.{}.ffn_down.{e}"
                "|model.layers.{}.block_sparse_moe.experts.{e}.w2"},
               {"gate", ""},
               {"up", ""},
               {"down", ""}}),
          .block = block};
}

}  // namespace nibble::models
