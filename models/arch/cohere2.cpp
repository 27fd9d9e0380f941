// SPDX-License-Identifier: Apache-2.0
// Command R7B: Command R with a sliding window in three layers of four; the fourth has no rope.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.full_attention_every = 4, .pairing = Pairing::interleaved, .norm_eps = 1e-5});
  c.logit_scale = static_cast<float>(m.get_float("logit_scale", 0.0625, 1e-9, 1e9));
  c.no_rope = c.full_attention;
  return c;
}

Value block(Builder& b, Value x) {
  const Value n = b.layer_norm(x, "attn_norm");
  return b.add(x, b.add(b.attention(n), b.mlp_gated(n, Act::silu)));
}

}  // namespace

Arch cohere2_arch() {
  return {.name = "cohere2",
          .model_types = {"cohere2"},
          .examples = "Command R7B, Command A",
          .config = config,
          .names = llama_names({{"ffn_norm", ""}}),
          .block = block,
          .head = layer_norm_head};
}

}  // namespace nibble::models
