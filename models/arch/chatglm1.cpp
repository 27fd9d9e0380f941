// SPDX-License-Identifier: Apache-2.0
// ChatGLM-6B (GLM, arXiv 2103.10360; github.com/THUDM/ChatGLM-6B): prompts whose tokens see each other, two positions
// per token, each for one half of a head, DeepNorm's residuals (arXiv 2203.00555). The converters to GGUF know no such
// model.
#include <cmath>

#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.rotary_part = 0.5, .act = Act::gelu_tanh});
  const auto token = [&](std::string_view key) { return static_cast<int>(m.need_int(key, 0, max_vocab - 1)); };
  c.prefix = {.end = token("bos_token_id"), .mark = token("gmask_token_id"), .other_mark = token("mask_token_id")};
  c.residual_scale = std::sqrt(2.0f * static_cast<float>(c.layers));
  return c;
}

Value block(Builder& b, Value x) {
  const float scale = b.config().residual_scale;
  x = b.layer_norm(x, "attn_norm");
  x = b.layer_norm(b.add(b.scale(x, scale), b.attention(x)), "ffn_norm");
  return b.add(b.scale(x, scale), b.mlp(x, b.config().act));
}

}  // namespace

Arch chatglm1_arch() {
  return {.name = "chatglm1",
          .model_types = {},
          .examples = "ChatGLM-6B",
          .proof = own_forward_proof,
          .base = "chatglm",
          .claims = [](const Metadata& m) { return m.get_bool("position_encoding_2d", false); },
          .config = config,
          .names = {{"embedding", "transformer.word_embeddings"},
                    {"attn_norm", "transformer.layers.{}.input_layernorm"},
                    {"q", "transformer.layers.{}.attention.query_key_value#group_q"},
                    {"k", "transformer.layers.{}.attention.query_key_value#group_k"},
                    {"v", "transformer.layers.{}.attention.query_key_value#group_v"},
                    {"o", "transformer.layers.{}.attention.dense"},
                    {"ffn_norm", "transformer.layers.{}.post_attention_layernorm"},
                    {"up", "transformer.layers.{}.mlp.dense_h_to_4h"},
                    {"down", "transformer.layers.{}.mlp.dense_4h_to_h"},
                    {"output_norm", "transformer.final_layernorm"},
                    {"output", "?lm_head"}},
          .block = block,
          .head = layer_norm_head};
}

}  // namespace nibble::models
