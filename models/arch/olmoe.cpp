// SPDX-License-Identifier: Apache-2.0
// OLMoE (arXiv 2409.02060): mixtures of experts, q and k normalized over all heads at once.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.experts = true});
  c.clip_qkv = static_cast<float>(m.get_float("attention.clamp_kqv|clip_qkv", 0, 0, 1e6));
  return c;
}

Value block(Builder& b, Value x) {
  x = b.add(x, b.attention(b.rms_norm(x, "attn_norm"), {.qk_norm = Norm::rms, .qk_norm_rows = true}));
  return b.add(x, b.moe_or_mlp(b.rms_norm(x, "ffn_norm")));
}

}  // namespace

Arch olmoe_arch() {
  return {.name = "olmoe",
          .model_types = {"olmoe"},
          .examples = "OLMoE-1B-7B",
          .config = config,
          .names = qwen3moe_arch().names,
          .block = block};
}

}  // namespace nibble::models
