// SPDX-License-Identifier: Apache-2.0
// GPT-NeoX (arXiv 2204.06745): partial rope, LayerNorm, biases; attention and MLP in parallel, with norms of their own,
// or one after the other.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  return read_config(m, {.rotary_part = 0.25, .act = Act::gelu, .norm_eps = 1e-5, .parallel_residual = true});
}

Value block(Builder& b, Value x) {
  const Value attention = b.attention(b.layer_norm(x, "attn_norm"));
  if (b.config().parallel_residual)
    return b.add(x, b.add(attention, b.mlp(b.layer_norm(x, "ffn_norm"), b.config().act)));
  x = b.add(x, attention);
  return b.add(x, b.mlp(b.layer_norm(x, "ffn_norm"), b.config().act));
}

}  // namespace

Arch gptneox_arch() {
  return {.name = "gptneox",
          .model_types = {"gptneox", "gpt_neox"},
          .examples = "GPT-NeoX 20B, Pythia, Dolly 2, Polyglot",
          .config = config,
          .names = {{"embedding", "token_embd|gpt_neox.embed_in"},
                    {"attn_norm", "blk.{}.attn_norm|gpt_neox.layers.{}.input_layernorm"},
                    {"q", "blk.{}.attn_qkv#q|gpt_neox.layers.{}.attention.query_key_value#group_q"},
                    {"k", "blk.{}.attn_qkv#k|gpt_neox.layers.{}.attention.query_key_value#group_k"},
                    {"v", "blk.{}.attn_qkv#v|gpt_neox.layers.{}.attention.query_key_value#group_v"},
                    {"o", "blk.{}.attn_output|gpt_neox.layers.{}.attention.dense"},
                    {"ffn_norm", "blk.{}.ffn_norm|gpt_neox.layers.{}.post_attention_layernorm"},
                    {"up", "blk.{}.ffn_up|gpt_neox.layers.{}.mlp.dense_h_to_4h"},
                    {"down", "blk.{}.ffn_down|gpt_neox.layers.{}.mlp.dense_4h_to_h"},
                    {"output_norm", "output_norm|gpt_neox.final_layer_norm"},
                    {"output", "?output|embed_out"}},
          .block = block,
          .head = layer_norm_head};
}

}  // namespace nibble::models
