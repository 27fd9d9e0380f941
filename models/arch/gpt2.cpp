// SPDX-License-Identifier: Apache-2.0
// GPT-2: learned positions, LayerNorm, a plain MLP; folders keep the matrices transposed.
#include "models/builder.h"
#include "models/config.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.ffn = 4, .rotary_part = 0, .act = Act::gelu_tanh, .norm_eps = 1e-5});
  constexpr std::string_view inverse = "scale_attn_by_inverse_layer_idx";
  NIBBLE_CHECK(!m.get_bool(inverse, false), m.file(), ": ", inverse, ": expected false");
  return c;
}

Value embed(Builder& b) { return b.add(b.embedding(), b.position_embedding()); }

Value block(Builder& b, Value x) {
  x = b.add(x, b.attention(b.layer_norm(x, "attn_norm")));
  return b.add(x, b.mlp(b.layer_norm(x, "ffn_norm"), b.config().act));
}

}  // namespace

Arch gpt2_arch() {
  return {.name = "gpt2",
          .model_types = {"gpt2"},
          .examples = "GPT-2, DistilGPT2",
          .config = config,
          .names = {{"embedding", "token_embd|transformer.wte|wte"},
                    {"position_embedding", "position_embd|transformer.wpe|wpe"},
                    {"attn_norm", "blk.{}.attn_norm|transformer.h.{}.ln_1|h.{}.ln_1"},
                    {"q", "blk.{}.attn_qkv#q|transformer.h.{}.attn.c_attn#transpose,q|h.{}.attn.c_attn#transpose,q"},
                    {"k", "blk.{}.attn_qkv#k|transformer.h.{}.attn.c_attn#transpose,k|h.{}.attn.c_attn#transpose,k"},
                    {"v", "blk.{}.attn_qkv#v|transformer.h.{}.attn.c_attn#transpose,v|h.{}.attn.c_attn#transpose,v"},
                    {"o", "blk.{}.attn_output|transformer.h.{}.attn.c_proj#transpose|h.{}.attn.c_proj#transpose"},
                    {"ffn_norm", "blk.{}.ffn_norm|transformer.h.{}.ln_2|h.{}.ln_2"},
                    {"up", "blk.{}.ffn_up|transformer.h.{}.mlp.c_fc#transpose|h.{}.mlp.c_fc#transpose"},
                    {"down", "blk.{}.ffn_down|transformer.h.{}.mlp.c_proj#transpose|h.{}.mlp.c_proj#transpose"},
                    {"output_norm", "output_norm|transformer.ln_f|ln_f"},
                    {"output", "?output|lm_head"}},
          .embed = embed,
          .block = block,
          .head = layer_norm_head};
}

}  // namespace nibble::models
