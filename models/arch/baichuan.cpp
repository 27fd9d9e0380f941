// SPDX-License-Identifier: Apache-2.0
// Baichuan 1 and 2 (arXiv 2309.10305): LLaMA with fused q, k and v; the 13B kind, whose configuration has no
// max_position_embeddings, has ALiBi in place of rope. Baichuan 2 (z_loss_weight) normalizes the rows of the head.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m);
  c.norm_eps = static_cast<float>(m.need_float("attention.layer_norm_rms_epsilon|rms_norm_eps", 1e-12, 1));
  // GGUF files hold the rows of q and k reordered, so that the two elements of a pair stand side by side.
  c.pairing = m.source() == Metadata::Source::gguf ? Pairing::interleaved : Pairing::halves;
  const bool folder = m.source() == Metadata::Source::hugging_face;
  const bool alibi = folder ? !m.has("max_position_embeddings") : m.has("attention.max_alibi_bias");
  if (alibi) {
    c.rope_dim = 0;
    c.alibi_bias = static_cast<float>(m.get_float("attention.max_alibi_bias", 8, 0, 1e6));
  }
  c.unit_head = folder && m.has("z_loss_weight");
  return c;
}

Value block(Builder& b, Value x) {
  x = b.add(x, b.attention(b.rms_norm(x, "attn_norm")));
  return b.add(x, b.mlp_gated(b.rms_norm(x, "ffn_norm"), Act::silu));
}

Value head(Builder& b, Value x) { return b.logits(b.rms_norm(x, "output_norm")); }

}  // namespace

Arch baichuan_arch() {
  return {.name = "baichuan",
          .model_types = {"baichuan"},
          .examples = "Baichuan, Baichuan2 7B and 13B",
          .config = config,
          .names = {{"embedding", "token_embd|model.embed_tokens"},
                    {"attn_norm", "blk.{}.attn_norm|model.layers.{}.input_layernorm"},
                    {"q", "blk.{}.attn_q|model.layers.{}.self_attn.W_pack#q"},
                    {"k", "blk.{}.attn_k|model.layers.{}.self_attn.W_pack#k"},
                    {"v", "blk.{}.attn_v|model.layers.{}.self_attn.W_pack#v"},
                    {"o", "blk.{}.attn_output|model.layers.{}.self_attn.o_proj"},
                    {"ffn_norm", "blk.{}.ffn_norm|model.layers.{}.post_attention_layernorm"},
                    {"gate", "blk.{}.ffn_gate|model.layers.{}.mlp.gate_proj"},
                    {"up", "blk.{}.ffn_up|model.layers.{}.mlp.up_proj"},
                    {"down", "blk.{}.ffn_down|model.layers.{}.mlp.down_proj"},
                    {"output_norm", "output_norm|model.norm"},
                    {"output", "?output|lm_head#unit_head"}},
          .block = block,
          .head = head};
}

}  // namespace nibble::models
