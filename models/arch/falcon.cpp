// SPDX-License-Identifier: Apache-2.0
// Falcon (arXiv 2311.16867): one or two LayerNorms before attention and MLP in parallel; the first models (RW) have
// ALiBi, and the MLP after the attention.
#include <cmath>

#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.ffn = 4, .context = 2048, .act = Act::gelu, .norm_eps = 1e-5});
  const bool grouped = m.get_bool("new_decoder_architecture", false);
  if (m.source() == Metadata::Source::hugging_face) {
    if (grouped) c.kv_heads = static_cast<int>(m.get_int("num_kv_heads|n_head_kv", c.heads, 1, c.heads));
    else if (m.get_bool("multi_query", true)) c.kv_heads = 1;
  }
  c.parallel_residual = grouped || m.get_bool("parallel_attn", true);
  if (m.get_bool("alibi", false)) {
    c.rope_dim = 0;
    c.alibi_bias = 8;
    c.alibi_scale = 1 / std::sqrt(static_cast<float>(c.head_dim));  // it is added before the scores are scaled
  }
  return c;
}

Value block(Builder& b, Value x) {
  const Value attention = b.attention(b.layer_norm(x, "attn_norm"));
  if (b.config().parallel_residual)
    return b.add(x, b.add(attention, b.mlp(b.layer_norm(x, "ffn_norm"), b.config().act)));
  x = b.add(x, attention);
  return b.add(x, b.mlp(b.layer_norm(x, "ffn_norm"), b.config().act));
}

}  // namespace

Arch falcon_arch() {
  return {.name = "falcon",
          .model_types = {"falcon", "RefinedWeb", "RefinedWebModel"},
          .examples = "Falcon 7B, 11B, 40B, 180B, Falcon RW",
          .config = config,
          .names = {{"embedding", "token_embd|transformer.word_embeddings"},
                    {"attn_norm", "blk.{}.attn_norm_2|transformer.h.{}.ln_attn|blk.{}.attn_norm|"
                                  "transformer.h.{}.input_layernorm"},
                    {"q", "blk.{}.attn_qkv#q|transformer.h.{}.self_attention.query_key_value#group_q"},
                    {"k", "blk.{}.attn_qkv#k|transformer.h.{}.self_attention.query_key_value#group_k"},
                    {"v", "blk.{}.attn_qkv#v|transformer.h.{}.self_attention.query_key_value#group_v"},
                    {"o", "blk.{}.attn_output|transformer.h.{}.self_attention.dense"},
                    {"ffn_norm", "blk.{}.attn_norm|transformer.h.{}.ln_mlp|"
                                 "transformer.h.{}.post_attention_layernorm|transformer.h.{}.input_layernorm"},
                    {"up", "blk.{}.ffn_up|transformer.h.{}.mlp.dense_h_to_4h"},
                    {"down", "blk.{}.ffn_down|transformer.h.{}.mlp.dense_4h_to_h"},
                    {"output_norm", "output_norm|transformer.ln_f"},
                    {"output", "?output|lm_head"}},
          .block = block,
          .head = layer_norm_head};
}

}  // namespace nibble::models
