// SPDX-License-Identifier: Apache-2.0
// StarCoder 2 (arXiv 2402.19173): LayerNorm, rope, grouped-query attention, a plain MLP, biases, a sliding window.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) { return read_config(m, {.act = Act::gelu_tanh, .norm_eps = 1e-5}); }

Value block(Builder& b, Value x) {
  x = b.add(x, b.attention(b.layer_norm(x, "attn_norm")));
  return b.add(x, b.mlp(b.layer_norm(x, "ffn_norm"), b.config().act));
}

}  // namespace

Arch starcoder2_arch() {
  return {.name = "starcoder2",
          .model_types = {"starcoder2"},
          .examples = "StarCoder2 3B, 7B and 15B",
          .config = config,
          .names = llama_names(
              {{"up", "blk.{}.ffn_up|model.layers.{}.mlp.c_fc"},
               {"down", "blk.{}.ffn_down|model.layers.{}.mlp.c_proj"},
               {"gate", ""}}),
          .block = block,
          .head = layer_norm_head};
}

}  // namespace nibble::models
