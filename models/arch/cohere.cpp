// SPDX-License-Identifier: Apache-2.0
// Command R: LayerNorm without bias, attention and MLP in parallel, adjacent rope pairs, scaled logits; the 104B kind
// normalizes each head of q and k.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.pairing = Pairing::interleaved, .norm_eps = 1e-5});
  c.logit_scale = static_cast<float>(m.get_float("logit_scale", 0.0625, 1e-9, 1e9));
  return c;
}

Value block(Builder& b, Value x) {
  const Value n = b.layer_norm(x, "attn_norm");
  return b.add(x, b.add(b.attention(n, {.qk_norm = Norm::layer}), b.mlp_gated(n, Act::silu)));
}

}  // namespace

Arch cohere_arch() {
  return {.name = "cohere",
          .model_types = {"command-r", "cohere"},
          .examples = "Command R, Command R+, Aya 23",
          .config = config,
          .names = llama_names(
              {{"q_norm", "?blk.{}.attn_q_norm#experts|model.layers.{}.self_attn.q_norm#experts"},
               {"k_norm", "?blk.{}.attn_k_norm#experts|model.layers.{}.self_attn.k_norm#experts"},
               {"ffn_norm", ""}}),
          .block = block,
          .head = layer_norm_head};
}

}  // namespace nibble::models
