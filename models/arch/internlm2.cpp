// SPDX-License-Identifier: Apache-2.0
// InternLM 2 (arXiv 2403.17297): LLaMA whose folders keep q, k and v in one matrix, by groups.
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) { return read_config(m, {.reordered_in_gguf = true}); }

}  // namespace

Arch internlm2_arch() {
  return {.name = "internlm2",
          .model_types = {"internlm2"},
          .examples = "InternLM2, InternLM2.5",
          .proof = same_class_proof,
          .config = config,
          .names = {{"embedding", "token_embd|model.tok_embeddings"},
                    {"attn_norm", "blk.{}.attn_norm|model.layers.{}.attention_norm"},
                    {"q", "blk.{}.attn_q|model.layers.{}.attention.wqkv#group_q"},
                    {"k", "blk.{}.attn_k|model.layers.{}.attention.wqkv#group_k"},
                    {"v", "blk.{}.attn_v|model.layers.{}.attention.wqkv#group_v"},
                    {"o", "blk.{}.attn_output|model.layers.{}.attention.wo"},
                    {"ffn_norm", "blk.{}.ffn_norm|model.layers.{}.ffn_norm"},
                    {"gate", "blk.{}.ffn_gate|model.layers.{}.feed_forward.w1"},
                    {"up", "blk.{}.ffn_up|model.layers.{}.feed_forward.w3"},
                    {"down", "blk.{}.ffn_down|model.layers.{}.feed_forward.w2"},
                    {"output_norm", "output_norm|model.norm"},
                    {"output", "?output"}}};
}

}  // namespace nibble::models
