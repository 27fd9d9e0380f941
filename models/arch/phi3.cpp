// SPDX-License-Identifier: Apache-2.0
// Phi 3, 3.5 and 4 (arXiv 2404.14219): LLaMA with fused matrices, a sliding window, and for long contexts LongRoPE.
#include "models/arch.h"

namespace nibble::models {

Arch phi3_arch() {
  return {.name = "phi3",
          .model_types = {"phi3"},
          .examples = "Phi-3, Phi-3.5, Phi-4",
          .names = llama_names(
              {{"q", "blk.{}.attn_qkv#q|model.layers.{}.self_attn.qkv_proj#q"},
               {"k", "blk.{}.attn_qkv#k|model.layers.{}.self_attn.qkv_proj#k"},
               {"v", "blk.{}.attn_qkv#v|model.layers.{}.self_attn.qkv_proj#v"},
               {"gate", "blk.{}.ffn_up#first_half|model.layers.{}.mlp.gate_up_proj#first_half"},
               {"up", "blk.{}.ffn_up#second_half|model.layers.{}.mlp.gate_up_proj#second_half"},
               {"rope_factors_short", "?rope_factors_short"},
               {"rope_factors_long", "?rope_factors_long"}})};
}

}  // namespace nibble::models
