// SPDX-License-Identifier: Apache-2.0
// Granite 3 (dense): LLaMA with four multipliers, of the embedding, the scores, the residual and the logits.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.reordered_in_gguf = true});
  const auto factor = [&](std::string_view keys, double fallback) {
    return static_cast<float>(m.get_float(keys, fallback, 1e-9, 1e9));
  };
  c.embedding_scale = factor("embedding_scale|embedding_multiplier", 1);
  c.residual_scale = factor("residual_scale|residual_multiplier", 1);
  c.attention_scale = static_cast<float>(m.get_float("attention.scale|attention_multiplier", 0, 0, 1e9));
  c.logit_scale = 1 / factor("logit_scale|logits_scaling", 1);
  return c;
}

Value block(Builder& b, Value x) {
  const float scale = b.config().residual_scale;
  x = b.add(x, b.scale(b.attention(b.rms_norm(x, "attn_norm")), scale));
  return b.add(x, b.scale(b.mlp_gated(b.rms_norm(x, "ffn_norm"), Act::silu), scale));
}

}  // namespace

Arch granite_arch() {
  return {.name = "granite",
          .model_types = {"granite"},
          .examples = "Granite 3",
          .config = config,
          .names = llama_names(),
          .block = block};
}

}  // namespace nibble::models
