// SPDX-License-Identifier: Apache-2.0
// MPT: ALiBi, LayerNorm without bias, q, k and v optionally clamped, no biases.
#include "models/builder.h"
#include "models/config.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  const int ratio = static_cast<int>(m.get_int("expansion_ratio", 4, 1, 1 << 10));
  Config c = read_config(m, {.ffn = ratio, .rotary_part = 0, .act = Act::gelu, .norm_eps = 1e-5});
  const auto number = [&](std::string_view keys, double fallback) {
    return static_cast<float>(m.get_float(keys, fallback, 0, 1e6));
  };
  c.kv_heads = static_cast<int>(m.get_int("attention.head_count_kv|attn_config.kv_n_heads", c.heads, 1, c.heads));
  c.alibi_bias = number("attention.max_alibi_bias|attn_config.alibi_bias_max", 8);
  c.clip_qkv = number("attention.clamp_kqv|attn_config.clip_qkv", 0);
  c.attention_scale = number("attn_config.softmax_scale", 0);
  NIBBLE_CHECK(c.alibi_bias > 0 && m.get_bool("attn_config.alibi", true), m.file(),
               ": attn_config.alibi: expected true");
  NIBBLE_CHECK(!m.get_bool("attn_config.qk_ln", false), m.file(), ": attn_config.qk_ln: expected false");
  return c;
}

Value block(Builder& b, Value x) {
  x = b.add(x, b.attention(b.layer_norm(x, "attn_norm")));
  return b.add(x, b.mlp(b.layer_norm(x, "ffn_norm"), b.config().act));
}

}  // namespace

Arch mpt_arch() {
  return {.name = "mpt",
          .model_types = {"mpt"},
          .examples = "MPT 7B and 30B",
          .config = config,
          .names = {{"embedding", "token_embd|transformer.wte"},
                    {"attn_norm", "blk.{}.attn_norm|transformer.blocks.{}.norm_1"},
                    {"q", "blk.{}.attn_qkv#q|transformer.blocks.{}.attn.Wqkv#q"},
                    {"k", "blk.{}.attn_qkv#k|transformer.blocks.{}.attn.Wqkv#k"},
                    {"v", "blk.{}.attn_qkv#v|transformer.blocks.{}.attn.Wqkv#v"},
                    {"o", "blk.{}.attn_output|transformer.blocks.{}.attn.out_proj"},
                    {"ffn_norm", "blk.{}.ffn_norm|transformer.blocks.{}.norm_2"},
                    {"up", "blk.{}.ffn_up|transformer.blocks.{}.ffn.up_proj"},
                    {"down", "blk.{}.ffn_down|transformer.blocks.{}.ffn.down_proj"},
                    {"output_norm", "output_norm|transformer.norm_f"},
                    {"output", "?output|lm_head"}},
          .block = block,
          .head = layer_norm_head};
}

}  // namespace nibble::models
