// SPDX-License-Identifier: Apache-2.0
// LLaMA 1, 2, 3 (arXiv 2302.13971, 2307.09288, 2407.21783) and models of the same shape: RMSNorm, rotary embedding,
// grouped-query attention, SwiGLU.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) { return read_config(m, {.reordered_in_gguf = true}); }

Value block(Builder& b, Value x) {
  x = b.add(x, b.attention(b.rms_norm(x, "attn_norm")));
  return b.add(x, b.mlp_gated(b.rms_norm(x, "ffn_norm"), Act::silu));
}

Value head(Builder& b, Value x) { return b.logits(b.rms_norm(x, "output_norm")); }

}  // namespace

Arch llama_arch() {
  return {.name = "llama",
          .model_types = {"llama"},
          .examples = "LLaMA 1-3, TinyLlama, SmolLM2, CodeLlama",
          .proof = "logits of transformers; texts and perplexities of llama.cpp",
          .config = config,
          .names = {{"embedding", "token_embd|model.embed_tokens"},
                    {"attn_norm", "blk.{}.attn_norm|model.layers.{}.input_layernorm"},
                    {"q", "blk.{}.attn_q|model.layers.{}.self_attn.q_proj"},
                    {"k", "blk.{}.attn_k|model.layers.{}.self_attn.k_proj"},
                    {"v", "blk.{}.attn_v|model.layers.{}.self_attn.v_proj"},
                    {"o", "blk.{}.attn_output|model.layers.{}.self_attn.o_proj"},
                    {"ffn_norm", "blk.{}.ffn_norm|model.layers.{}.post_attention_layernorm"},
                    {"gate", "blk.{}.ffn_gate|model.layers.{}.mlp.gate_proj"},
                    {"up", "blk.{}.ffn_up|model.layers.{}.mlp.up_proj"},
                    {"down", "blk.{}.ffn_down|model.layers.{}.mlp.down_proj"},
                    {"output_norm", "output_norm|model.norm"},
                    {"output", "?output|lm_head"},
                    {"rope_factors", "?rope_freqs"}},
          .block = block,
          .head = head};
}

}  // namespace nibble::models
