// SPDX-License-Identifier: Apache-2.0
// SmolLM3: LLaMA in which each fourth layer has no rope.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m);
  c.norm_eps = static_cast<float>(m.need_float("attention.layer_norm_rms_epsilon|rms_norm_eps", 1e-12, 1));
  // GGUF files hold the rows of q and k reordered, so that the two elements of a pair stand side by side.
  c.pairing = m.source() == Metadata::Source::gguf ? Pairing::interleaved : Pairing::halves;
  const auto interval = static_cast<int>(m.get_int("no_rope_layer_interval", 4, 1, 1 << 20));
  c.no_rope = read_layers(m, "no_rope_layers", c.layers, interval);
  c.no_rope.flip();  // the list says which layers do have it
  return c;
}

Value block(Builder& b, Value x) {
  x = b.add(x, b.attention(b.rms_norm(x, "attn_norm")));
  return b.add(x, b.mlp_gated(b.rms_norm(x, "ffn_norm"), Act::silu));
}

Value head(Builder& b, Value x) { return b.logits(b.rms_norm(x, "output_norm")); }

}  // namespace

Arch smollm3_arch() {
  return {.name = "smollm3",
          .model_types = {"smollm3"},
          .examples = "SmolLM3",
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
