// SPDX-License-Identifier: Apache-2.0
// StarCoder 1 and SantaCoder (arXiv 2305.06161): GPT-2 with one head of keys and values for all queries.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.ffn = 4, .rotary_part = 0, .act = Act::gelu_tanh, .norm_eps = 1e-5});
  if (m.get_bool("multi_query", false)) c.kv_heads = 1;
  return c;
}

Value embed(Builder& b) { return b.add(b.embedding(), b.position_embedding()); }

Value block(Builder& b, Value x) {
  x = b.add(x, b.attention(b.layer_norm(x, "attn_norm")));
  return b.add(x, b.mlp(b.layer_norm(x, "ffn_norm"), b.config().act));
}

}  // namespace

Arch starcoder_arch() {
  return {.name = "starcoder",
          .model_types = {"starcoder", "gpt_bigcode"},
          .examples = "StarCoder 1B to 15B, SantaCoder",
          .config = config,
          .names = {{"embedding", "token_embd|transformer.wte"},
                    {"position_embedding", "position_embd|transformer.wpe"},
                    {"attn_norm", "blk.{}.attn_norm|transformer.h.{}.ln_1"},
                    {"q", "blk.{}.attn_qkv#q|transformer.h.{}.attn.c_attn#group_q"},
                    {"k", "blk.{}.attn_qkv#k|transformer.h.{}.attn.c_attn#group_k"},
                    {"v", "blk.{}.attn_qkv#v|transformer.h.{}.attn.c_attn#group_v"},
                    {"o", "blk.{}.attn_output|transformer.h.{}.attn.c_proj"},
                    {"ffn_norm", "blk.{}.ffn_norm|transformer.h.{}.ln_2"},
                    {"up", "blk.{}.ffn_up|transformer.h.{}.mlp.c_fc"},
                    {"down", "blk.{}.ffn_down|transformer.h.{}.mlp.c_proj"},
                    {"output_norm", "output_norm|transformer.ln_f"},
                    {"output", "?output|lm_head"}},
          .embed = embed,
          .block = block,
          .head = layer_norm_head};
}

}  // namespace nibble::models
