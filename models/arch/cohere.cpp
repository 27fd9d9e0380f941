// SPDX-License-Identifier: Apache-2.0
// Command R: LayerNorm without bias, attention and MLP in parallel, adjacent rope pairs, scaled logits; the 104B kind
// normalizes each head of q and k.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m);
  c.norm_eps = static_cast<float>(m.get_float("attention.layer_norm_epsilon|layer_norm_eps", 1e-5, 1e-12, 1));
  c.pairing = Pairing::interleaved;
  c.logit_scale = static_cast<float>(m.get_float("logit_scale", 0.0625, 1e-9, 1e9));
  return c;
}

Value block(Builder& b, Value x) {
  const Value n = b.layer_norm(x, "attn_norm");
  return b.add(x, b.add(b.attention(n, {.qk_norm = Norm::layer}), b.mlp_gated(n, Act::silu)));
}

Value head(Builder& b, Value x) { return b.logits(b.layer_norm(x, "output_norm")); }

}  // namespace

Arch cohere_arch() {
  return {.name = "cohere",
          .model_types = {"command-r", "cohere"},
          .examples = "Command R, Command R+, Aya 23",
          .config = config,
          .names = {{"embedding", "token_embd|model.embed_tokens"},
                    {"attn_norm", "blk.{}.attn_norm|model.layers.{}.input_layernorm"},
                    {"q", "blk.{}.attn_q|model.layers.{}.self_attn.q_proj"},
                    {"k", "blk.{}.attn_k|model.layers.{}.self_attn.k_proj"},
                    {"v", "blk.{}.attn_v|model.layers.{}.self_attn.v_proj"},
                    {"o", "blk.{}.attn_output|model.layers.{}.self_attn.o_proj"},
                    {"gate", "blk.{}.ffn_gate|model.layers.{}.mlp.gate_proj"},
                    {"up", "blk.{}.ffn_up|model.layers.{}.mlp.up_proj"},
                    {"down", "blk.{}.ffn_down|model.layers.{}.mlp.down_proj"},
                    {"output_norm", "output_norm|model.norm"},
                    {"output", "?output|lm_head"},
                    {"q_norm", "?blk.{}.attn_q_norm#experts|model.layers.{}.self_attn.q_norm#experts"},
                    {"k_norm", "?blk.{}.attn_k_norm#experts|model.layers.{}.self_attn.k_norm#experts"}},
          .block = block,
          .head = head};
}

}  // namespace nibble::models
