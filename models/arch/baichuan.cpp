// SPDX-License-Identifier: Apache-2.0
// Baichuan 1 and 2 (arXiv 2309.10305): LLaMA with fused q, k and v; the 13B kind, whose configuration has no
// max_position_embeddings, has ALiBi in place of rope. Baichuan 2 (z_loss_weight) normalizes the rows of the head.
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m, {.reordered_in_gguf = true});
  const bool folder = m.source() == Metadata::Source::hugging_face;
  const bool alibi = folder ? !m.has("max_position_embeddings") : m.has("attention.max_alibi_bias");
  if (alibi) {
    c.rope_dim = 0;
    c.alibi_bias = static_cast<float>(m.get_float("attention.max_alibi_bias", 8, 0, 1e6));
  }
  c.unit_head = folder && m.has("z_loss_weight");
  return c;
}

}  // namespace

Arch baichuan_arch() {
  return {.name = "baichuan",
          .model_types = {"baichuan"},
          .examples = "Baichuan, Baichuan2 7B and 13B",
          .proof = same_class_proof,
          .config = config,
          .names = llama_names(
              {{"q", "blk.{}.attn_q|model.layers.{}.self_attn.W_pack#q"},
               {"k", "blk.{}.attn_k|model.layers.{}.self_attn.W_pack#k"},
               {"v", "blk.{}.attn_v|model.layers.{}.self_attn.W_pack#v"},
               {"output", "?output|lm_head#unit_head"}})};
}

}  // namespace nibble::models
