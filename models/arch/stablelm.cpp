// SPDX-License-Identifier: Apache-2.0
// StableLM (arXiv 2402.17834): partial rope, LayerNorm. The 12B kind has no second norm, as attention and MLP run in
// parallel, and a norm for each head of q and k.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) { return read_config(m, {.rotary_part = 0.25, .norm_eps = 1e-5}); }

Value block(Builder& b, Value x) {
  const Value n = b.layer_norm(x, "attn_norm");
  const Value attention = b.attention(n, {.qk_norm = Norm::layer});
  if (b.config().parallel_residual) return b.add(x, b.add(attention, b.mlp_gated(n, Act::silu)));
  x = b.add(x, attention);
  return b.add(x, b.mlp_gated(b.layer_norm(x, "ffn_norm"), Act::silu));
}

}  // namespace

Arch stablelm_arch() {
  return {.name = "stablelm",
          .model_types = {"stablelm", "stablelm_epoch"},
          .examples = "StableLM 3B, StableLM 2 1.6B and 12B",
          .config = config,
          .names = llama_names(
              {{"ffn_norm", "?blk.{}.ffn_norm|model.layers.{}.post_attention_layernorm"},
               {"q_norm", "?blk.{}.attn_q_norm#experts|model.layers.{}.self_attn.q_layernorm.norms.{e}"},
               {"k_norm", "?blk.{}.attn_k_norm#experts|model.layers.{}.self_attn.k_layernorm.norms.{e}"}}),
          .block = block,
          .head = layer_norm_head};
}

}  // namespace nibble::models
