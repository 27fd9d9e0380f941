// SPDX-License-Identifier: Apache-2.0
// BLOOM (arXiv 2211.05100): ALiBi, LayerNorm, also of the embedding, biases.
#include "models/builder.h"
#include "models/config.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.ffn = 4, .context = 2048, .rotary_part = 0, .act = Act::gelu_tanh, .norm_eps = 1e-5});
  c.alibi_bias = 8;
  constexpr std::string_view post = "apply_residual_connection_post_layernorm";
  NIBBLE_CHECK(!m.get_bool(post, false), m.file(), ": ", post, ": expected false");
  return c;
}

Value embed(Builder& b) { return b.layer_norm(b.embedding(), "embedding_norm"); }

Value block(Builder& b, Value x) {
  x = b.add(x, b.attention(b.layer_norm(x, "attn_norm")));
  return b.add(x, b.mlp(b.layer_norm(x, "ffn_norm"), b.config().act));
}

}  // namespace

Arch bloom_arch() {
  return {.name = "bloom",
          .model_types = {"bloom"},
          .examples = "BLOOM, BLOOMZ",
          .config = config,
          .names = {{"embedding", "token_embd|transformer.word_embeddings|word_embeddings"},
                    {"embedding_norm", "token_embd_norm|transformer.word_embeddings_layernorm|"
                                       "word_embeddings_layernorm"},
                    {"attn_norm", "blk.{}.attn_norm|transformer.h.{}.input_layernorm|h.{}.input_layernorm"},
                    {"q", "blk.{}.attn_qkv#q|transformer.h.{}.self_attention.query_key_value#group_q|"
                          "h.{}.self_attention.query_key_value#group_q"},
                    {"k", "blk.{}.attn_qkv#k|transformer.h.{}.self_attention.query_key_value#group_k|"
                          "h.{}.self_attention.query_key_value#group_k"},
                    {"v", "blk.{}.attn_qkv#v|transformer.h.{}.self_attention.query_key_value#group_v|"
                          "h.{}.self_attention.query_key_value#group_v"},
                    {"o", "blk.{}.attn_output|transformer.h.{}.self_attention.dense|h.{}.self_attention.dense"},
                    {"ffn_norm", "blk.{}.ffn_norm|transformer.h.{}.post_attention_layernorm|"
                                 "h.{}.post_attention_layernorm"},
                    {"up", "blk.{}.ffn_up|transformer.h.{}.mlp.dense_h_to_4h|h.{}.mlp.dense_h_to_4h"},
                    {"down", "blk.{}.ffn_down|transformer.h.{}.mlp.dense_4h_to_h|h.{}.mlp.dense_4h_to_h"},
                    {"output_norm", "output_norm|transformer.ln_f|ln_f"},
                    {"output", "?output|lm_head"}},
          .embed = embed,
          .block = block,
          .head = layer_norm_head};
}

}  // namespace nibble::models
