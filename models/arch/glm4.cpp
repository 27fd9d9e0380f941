// SPDX-License-Identifier: Apache-2.0
// GLM-4 0414: GLM-4 9B with norms also behind attention and MLP.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) { return read_config(m, {.rotary_part = 0.5, .pairing = Pairing::interleaved}); }

Value block(Builder& b, Value x) {
  x = b.add(x, b.rms_norm(b.attention(b.rms_norm(x, "attn_norm")), "attn_post_norm"));
  return b.add(x, b.rms_norm(b.mlp_gated(b.rms_norm(x, "ffn_norm"), Act::silu), "ffn_post_norm"));
}

}  // namespace

Arch glm4_arch() {
  return {.name = "glm4",
          .model_types = {"glm4"},
          .examples = "GLM-4 0414 9B and 32B",
          .config = config,
          .names = llama_names(
              {{"gate", "blk.{}.ffn_up#first_half|model.layers.{}.mlp.gate_up_proj#first_half"},
               {"up", "blk.{}.ffn_up#second_half|model.layers.{}.mlp.gate_up_proj#second_half"},
               {"attn_post_norm", "blk.{}.post_attention_norm|model.layers.{}.post_self_attn_layernorm"},
               {"ffn_post_norm", "blk.{}.post_ffw_norm|model.layers.{}.post_mlp_layernorm"}}),
          .block = block};
}

}  // namespace nibble::models
