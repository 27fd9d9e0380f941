// SPDX-License-Identifier: Apache-2.0
// Qwen 1 (arXiv 2309.16609): LLaMA with fused q, k and v that have biases. What it does beyond its trained
// length (NTK, log n) is left out.
#include <algorithm>

#include "models/config.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) {
  Config c = read_config(m);
  NIBBLE_CHECK(c.ffn % 2 == 0, m.file(), ": intermediate_size: expected an even number, found ", c.ffn);
  c.ffn /= 2;  // the number counts gate and up
  c.context = std::min(c.context, static_cast<int>(m.get_int("seq_length", c.context, 1, 1 << 28)));
  return c;
}

}  // namespace

Arch qwen_arch() {
  return {.name = "qwen",
          .model_types = {"qwen"},
          .examples = "Qwen 1.8B to 72B",
          .proof = same_class_proof,
          .config = config,
          .names = {{"embedding", "token_embd|transformer.wte"},
                    {"attn_norm", "blk.{}.attn_norm|transformer.h.{}.ln_1"},
                    {"q", "blk.{}.attn_qkv#q|transformer.h.{}.attn.c_attn#q"},
                    {"k", "blk.{}.attn_qkv#k|transformer.h.{}.attn.c_attn#k"},
                    {"v", "blk.{}.attn_qkv#v|transformer.h.{}.attn.c_attn#v"},
                    {"o", "blk.{}.attn_output|transformer.h.{}.attn.c_proj"},
                    {"ffn_norm", "blk.{}.ffn_norm|transformer.h.{}.ln_2"},
                    {"gate", "blk.{}.ffn_gate|transformer.h.{}.mlp.w2"},
                    {"up", "blk.{}.ffn_up|transformer.h.{}.mlp.w1"},
                    {"down", "blk.{}.ffn_down|transformer.h.{}.mlp.c_proj"},
                    {"output_norm", "output_norm|transformer.ln_f"},
                    {"output", "?output|lm_head"}}};
}

}  // namespace nibble::models
