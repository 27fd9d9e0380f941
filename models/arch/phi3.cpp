// SPDX-License-Identifier: Apache-2.0
// Phi 3, 3.5 and 4 (arXiv 2404.14219): LLaMA with fused matrices, a sliding window, and for long contexts LongRoPE.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m);
  c.norm_eps = static_cast<float>(m.need_float("attention.layer_norm_rms_epsilon|rms_norm_eps", 1e-12, 1));
  return c;
}

Value block(Builder& b, Value x) {
  x = b.add(x, b.attention(b.rms_norm(x, "attn_norm")));
  return b.add(x, b.mlp_gated(b.rms_norm(x, "ffn_norm"), Act::silu));
}

Value head(Builder& b, Value x) { return b.logits(b.rms_norm(x, "output_norm")); }

}  // namespace

Arch phi3_arch() {
  return {.name = "phi3",
          .model_types = {"phi3"},
          .examples = "Phi-3, Phi-3.5, Phi-4",
          .config = config,
          .names = {{"embedding", "token_embd|model.embed_tokens"},
                    {"attn_norm", "blk.{}.attn_norm|model.layers.{}.input_layernorm"},
                    {"q", "blk.{}.attn_qkv#q|model.layers.{}.self_attn.qkv_proj#q"},
                    {"k", "blk.{}.attn_qkv#k|model.layers.{}.self_attn.qkv_proj#k"},
                    {"v", "blk.{}.attn_qkv#v|model.layers.{}.self_attn.qkv_proj#v"},
                    {"o", "blk.{}.attn_output|model.layers.{}.self_attn.o_proj"},
                    {"ffn_norm", "blk.{}.ffn_norm|model.layers.{}.post_attention_layernorm"},
                    {"gate", "blk.{}.ffn_up#first_half|model.layers.{}.mlp.gate_up_proj#first_half"},
                    {"up", "blk.{}.ffn_up#second_half|model.layers.{}.mlp.gate_up_proj#second_half"},
                    {"down", "blk.{}.ffn_down|model.layers.{}.mlp.down_proj"},
                    {"output_norm", "output_norm|model.norm"},
                    {"output", "?output|lm_head"},
                    {"rope_factors_short", "?rope_factors_short"},
                    {"rope_factors_long", "?rope_factors_long"}},
          .block = block,
          .head = head};
}

}  // namespace nibble::models
