// SPDX-License-Identifier: Apache-2.0
// Mixtral (arXiv 2401.04088): Mistral with a mixture of experts in every layer. Converters to GGUF write it under llama, so
// files of llama with experts are this architecture too.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.experts = true, .normalize_experts = true});
  c.norm_eps = static_cast<float>(m.need_float("attention.layer_norm_rms_epsilon|rms_norm_eps", 1e-12, 1));
  c.pairing = m.source() == Metadata::Source::gguf ? Pairing::interleaved : Pairing::halves;  // as in llama.cpp
  return c;
}

Value block(Builder& b, Value x) {
  x = b.add(x, b.attention(b.rms_norm(x, "attn_norm")));
  return b.add(x, b.moe(b.rms_norm(x, "ffn_norm")));
}

Value head(Builder& b, Value x) { return b.logits(b.rms_norm(x, "output_norm")); }

}  // namespace

Arch mixtral_arch() {
  return {.name = "mixtral",
          .model_types = {"mixtral"},
          .examples = "Mixtral 8x7B, 8x22B",
          .base = "llama",
          .claims = [](const Metadata& m) { return m.get_int("expert_count", 0, 0, 1 << 20) > 0; },
          .config = config,
          .names = {{"embedding", "token_embd|model.embed_tokens"},
                    {"attn_norm", "blk.{}.attn_norm|model.layers.{}.input_layernorm"},
                    {"q", "blk.{}.attn_q|model.layers.{}.self_attn.q_proj"},
                    {"k", "blk.{}.attn_k|model.layers.{}.self_attn.k_proj"},
                    {"v", "blk.{}.attn_v|model.layers.{}.self_attn.v_proj"},
                    {"o", "blk.{}.attn_output|model.layers.{}.self_attn.o_proj"},
                    {"ffn_norm", "blk.{}.ffn_norm|model.layers.{}.post_attention_layernorm"},
                    {"router", "blk.{}.ffn_gate_inp|model.layers.{}.block_sparse_moe.gate"},
                    {"gate_experts", "blk.{}.ffn_gate_exps#experts|blk.{}.ffn_gate.{e}|model.layers.{}.block_sparse_moe.experts.{e}.w1"},
                    {"up_experts", "blk.{}.ffn_up_exps#experts|blk.{}.ffn_up.{e}|model.layers.{}.block_sparse_moe.experts.{e}.w3"},
                    {"down_experts", "blk.{}.ffn_down_exps#experts|blk.{}.ffn_down.{e}|model.layers.{}.block_sparse_moe.experts.{e}.w2"},
                    {"output_norm", "output_norm|model.norm"},
                    {"output", "?output|lm_head"},
                    {"rope_factors", "?rope_freqs"}},
          .block = block,
          .head = head};
}

}  // namespace nibble::models
