// SPDX-License-Identifier: Apache-2.0
// Granite 3 (dense): LLaMA with four multipliers, of the embedding, the scores, the residual and the logits.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m);
  c.norm_eps = static_cast<float>(m.need_float("attention.layer_norm_rms_epsilon|rms_norm_eps", 1e-12, 1));
  // GGUF files hold the rows of q and k reordered, so that the two elements of a pair stand side by side.
  c.pairing = m.source() == Metadata::Source::gguf ? Pairing::interleaved : Pairing::halves;
  const auto factor = [&](std::string_view keys, double fallback) {
    return static_cast<float>(m.get_float(keys, fallback, 1e-9, 1e9));
  };
  c.embedding_scale = factor("embedding_scale|embedding_multiplier", 1);
  c.residual_scale = factor("residual_scale|residual_multiplier", 1);
  if (m.has("attention.scale|attention_multiplier")) c.attention_scale = factor("attention.scale|attention_multiplier", 1);
  c.logit_scale = 1 / factor("logit_scale|logits_scaling", 1);
  return c;
}

Value block(Builder& b, Value x) {
  const float scale = b.config().residual_scale;
  x = b.add(x, b.scale(b.attention(b.rms_norm(x, "attn_norm")), scale));
  return b.add(x, b.scale(b.mlp_gated(b.rms_norm(x, "ffn_norm"), Act::silu), scale));
}

Value head(Builder& b, Value x) { return b.logits(b.rms_norm(x, "output_norm")); }

}  // namespace

Arch granite_arch() {
  return {.name = "granite",
          .model_types = {"granite"},
          .examples = "Granite 3",
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
