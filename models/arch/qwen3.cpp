// SPDX-License-Identifier: Apache-2.0
// Qwen 3 (arXiv 2505.09388): LLaMA with q and k normalized per head.
#include "models/builder.h"

namespace nibble::models {

namespace {

Value block(Builder& b, Value x) {
  x = b.add(x, b.attention(b.rms_norm(x, "attn_norm"), {.qk_norm = Norm::rms}));
  return b.add(x, b.mlp_gated(b.rms_norm(x, "ffn_norm"), Act::silu));
}

}  // namespace

Arch qwen3_arch() {
  return {.name = "qwen3",
          .model_types = {"qwen3"},
          .examples = "Qwen3",
          .names = llama_names(
              {{"q_norm", "blk.{}.attn_q_norm|model.layers.{}.self_attn.q_norm"},
               {"k_norm", "blk.{}.attn_k_norm|model.layers.{}.self_attn.k_norm"}}),
          .block = block};
}

}  // namespace nibble::models
