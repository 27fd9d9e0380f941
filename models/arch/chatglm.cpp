// SPDX-License-Identifier: Apache-2.0
// ChatGLM 2 and 3, GLM-4 9B (arXiv 2406.12793): rope on half of each head in adjacent pairs, grouped queries,
// fused matrices.
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.rotary_part = 0.5, .pairing = Pairing::interleaved});
  c.kv_heads = static_cast<int>(m.get_int("multi_query_group_num", c.kv_heads, 1, c.heads));
  c.rope_theta *= static_cast<float>(m.get_float("rope_ratio", 1, 1e-3, 1e9));
  check_heads(m, c);
  return c;
}

}  // namespace

Arch chatglm_arch() {
  return {.name = "chatglm",
          .model_types = {"chatglm", "glm"},
          .examples = "ChatGLM2, ChatGLM3, GLM-4 9B",
          .proof = same_class_proof,
          .config = config,
          .names = {{"embedding", "token_embd|transformer.embedding.word_embeddings|model.embed_tokens"},
                    {"attn_norm", "blk.{}.attn_norm|transformer.encoder.layers.{}.input_layernorm|"
                                  "model.layers.{}.input_layernorm"},
                    {"q", "blk.{}.attn_qkv#q|blk.{}.attn_q|"
                          "transformer.encoder.layers.{}.self_attention.query_key_value#q|"
                          "model.layers.{}.self_attn.q_proj"},
                    {"k", "blk.{}.attn_qkv#k|blk.{}.attn_k|"
                          "transformer.encoder.layers.{}.self_attention.query_key_value#k|"
                          "model.layers.{}.self_attn.k_proj"},
                    {"v", "blk.{}.attn_qkv#v|blk.{}.attn_v|"
                          "transformer.encoder.layers.{}.self_attention.query_key_value#v|"
                          "model.layers.{}.self_attn.v_proj"},
                    {"o", "blk.{}.attn_output|transformer.encoder.layers.{}.self_attention.dense|"
                          "model.layers.{}.self_attn.o_proj"},
                    {"ffn_norm", "blk.{}.ffn_norm|transformer.encoder.layers.{}.post_attention_layernorm|"
                                 "model.layers.{}.post_attention_layernorm"},
                    {"gate", "blk.{}.ffn_up#first_half|transformer.encoder.layers.{}.mlp.dense_h_to_4h#first_half|"
                             "model.layers.{}.mlp.gate_up_proj#first_half"},
                    {"up", "blk.{}.ffn_up#second_half|transformer.encoder.layers.{}.mlp.dense_h_to_4h#second_half|"
                           "model.layers.{}.mlp.gate_up_proj#second_half"},
                    {"down", "blk.{}.ffn_down|transformer.encoder.layers.{}.mlp.dense_4h_to_h|"
                             "model.layers.{}.mlp.down_proj"},
                    {"output_norm", "output_norm|transformer.encoder.final_layernorm|model.norm"},
                    {"output", "?output|transformer.output_layer|lm_head"}}};
}

}  // namespace nibble::models
