// SPDX-License-Identifier: Apache-2.0
// StarCoder 2 (arXiv 2402.19173): LayerNorm, rope, grouped-query attention, a plain MLP, biases, a sliding window.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.act = Act::gelu_tanh});
  c.norm_eps = static_cast<float>(m.get_float("attention.layer_norm_epsilon|norm_epsilon", 1e-5, 1e-12, 1));
  return c;
}

Value block(Builder& b, Value x) {
  x = b.add(x, b.attention(b.layer_norm(x, "attn_norm")));
  return b.add(x, b.mlp(b.layer_norm(x, "ffn_norm"), b.config().act));
}

Value head(Builder& b, Value x) { return b.logits(b.layer_norm(x, "output_norm")); }

}  // namespace

Arch starcoder2_arch() {
  return {.name = "starcoder2",
          .model_types = {"starcoder2"},
          .examples = "StarCoder2 3B, 7B and 15B",
          .config = config,
          .names = {{"embedding", "token_embd|model.embed_tokens"},
                    {"attn_norm", "blk.{}.attn_norm|model.layers.{}.input_layernorm"},
                    {"q", "blk.{}.attn_q|model.layers.{}.self_attn.q_proj"},
                    {"k", "blk.{}.attn_k|model.layers.{}.self_attn.k_proj"},
                    {"v", "blk.{}.attn_v|model.layers.{}.self_attn.v_proj"},
                    {"o", "blk.{}.attn_output|model.layers.{}.self_attn.o_proj"},
                    {"ffn_norm", "blk.{}.ffn_norm|model.layers.{}.post_attention_layernorm"},
                    {"up", "blk.{}.ffn_up|model.layers.{}.mlp.c_fc"},
                    {"down", "blk.{}.ffn_down|model.layers.{}.mlp.c_proj"},
                    {"output_norm", "output_norm|model.norm"},
                    {"output", "?output|lm_head"}},
          .block = block,
          .head = head};
}

}  // namespace nibble::models
