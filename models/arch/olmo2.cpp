// SPDX-License-Identifier: Apache-2.0
// OLMo 2 (arXiv 2501.00656): norms after attention and MLP instead of before, q and k normalized over all heads.
#include "models/builder.h"

namespace nibble::models {

namespace {

Value block(Builder& b, Value x) {
  x = b.add(x, b.rms_norm(b.attention(x, {.qk_norm = Norm::rms, .qk_norm_rows = true}), "attn_post_norm"));
  return b.add(x, b.rms_norm(b.mlp_gated(x, Act::silu), "ffn_post_norm"));
}

}  // namespace

Arch olmo2_arch() {
  return {.name = "olmo2",
          .model_types = {"olmo2"},
          .examples = "OLMo 2",
          .names = llama_names(
              {{"attn_post_norm", "blk.{}.post_attention_norm|model.layers.{}.post_attention_layernorm"},
               {"ffn_post_norm", "blk.{}.post_ffw_norm|model.layers.{}.post_feedforward_layernorm"},
               {"q_norm", "blk.{}.attn_q_norm|model.layers.{}.self_attn.q_norm"},
               {"k_norm", "blk.{}.attn_k_norm|model.layers.{}.self_attn.k_norm"},
               {"attn_norm", ""},
               {"ffn_norm", ""}}),
          .block = block};
}

}  // namespace nibble::models
