// SPDX-License-Identifier: Apache-2.0
// Phi 1, 1.5 and 2: partial rope, one LayerNorm before attention and MLP in parallel, biases everywhere.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  return read_config(m, {.rotary_part = 0.5, .act = Act::gelu_tanh, .norm_eps = 1e-5});
}

Value block(Builder& b, Value x) {
  const Value n = b.layer_norm(x, "attn_norm");
  return b.add(x, b.add(b.attention(n, {.qk_norm = Norm::layer}), b.mlp(n, b.config().act)));
}

}  // namespace

Arch phi_arch() {
  return {.name = "phi",
          .model_types = {"phi2", "phi"},
          .examples = "Phi 1, 1.5, 2",
          .config = config,
          .names = {{"embedding", "token_embd|model.embed_tokens"},
                    {"attn_norm", "blk.{}.attn_norm|model.layers.{}.input_layernorm"},
                    {"q", "blk.{}.attn_q|blk.{}.attn_qkv#q|model.layers.{}.self_attn.q_proj"},
                    {"k", "blk.{}.attn_k|blk.{}.attn_qkv#k|model.layers.{}.self_attn.k_proj"},
                    {"v", "blk.{}.attn_v|blk.{}.attn_qkv#v|model.layers.{}.self_attn.v_proj"},
                    {"q_norm", "?model.layers.{}.self_attn.q_layernorm"},
                    {"k_norm", "?model.layers.{}.self_attn.k_layernorm"},
                    {"o", "blk.{}.attn_output|model.layers.{}.self_attn.dense"},
                    {"up", "blk.{}.ffn_up|model.layers.{}.mlp.fc1"},
                    {"down", "blk.{}.ffn_down|model.layers.{}.mlp.fc2"},
                    {"output_norm", "output_norm|model.final_layernorm"},
                    {"output", "?output|lm_head"}},
          .block = block,
          .head = layer_norm_head};
}

}  // namespace nibble::models
