// SPDX-License-Identifier: Apache-2.0
// GLM-4 0414: GLM-4 9B with norms also behind attention and MLP.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.rotary_part = 0.5});
  c.norm_eps = static_cast<float>(m.need_float("attention.layer_norm_rms_epsilon|rms_norm_eps", 1e-12, 1));
  c.pairing = Pairing::interleaved;
  return c;
}

Value block(Builder& b, Value x) {
  x = b.add(x, b.rms_norm(b.attention(b.rms_norm(x, "attn_norm")), "attn_post_norm"));
  return b.add(x, b.rms_norm(b.mlp_gated(b.rms_norm(x, "ffn_norm"), Act::silu), "ffn_post_norm"));
}

Value head(Builder& b, Value x) { return b.logits(b.rms_norm(x, "output_norm")); }

}  // namespace

Arch glm4_arch() {
  return {.name = "glm4",
          .model_types = {"glm4"},
          .examples = "GLM-4 0414 9B and 32B",
          .config = config,
          .names = {{"embedding", "token_embd|model.embed_tokens"},
                    {"attn_norm", "blk.{}.attn_norm|model.layers.{}.input_layernorm"},
                    {"q", "blk.{}.attn_q|model.layers.{}.self_attn.q_proj"},
                    {"k", "blk.{}.attn_k|model.layers.{}.self_attn.k_proj"},
                    {"v", "blk.{}.attn_v|model.layers.{}.self_attn.v_proj"},
                    {"o", "blk.{}.attn_output|model.layers.{}.self_attn.o_proj"},
                    {"ffn_norm", "blk.{}.ffn_norm|model.layers.{}.post_attention_layernorm"},
                    {"gate", "blk.{}.ffn_up#first_half|model.layers.{}.mlp.gate_up_proj#first_half"},
                    {"up", "blk.{}.ffn_up#second_half|model.layers.{}.mlp.gate_up_proj#second_half"},
                    {"down", "blk.{}.ffn_down|model.layers.{}.mlp.down_proj"},
                    {"output_norm", "output_norm|model.norm"},
                    {"output", "?output|lm_head"},
                    {"attn_post_norm", "blk.{}.post_attention_norm|model.layers.{}.post_self_attn_layernorm"},
                    {"ffn_post_norm", "blk.{}.post_ffw_norm|model.layers.{}.post_mlp_layernorm"}},
          .block = block,
          .head = head};
}

}  // namespace nibble::models
