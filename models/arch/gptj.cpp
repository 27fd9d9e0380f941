// SPDX-License-Identifier: Apache-2.0
// GPT-J 6B (github.com/kingoflolz/mesh-transformer-jax): one LayerNorm feeds attention and MLP in parallel; rotary on
// the first `rope_dim` elements of each head, adjacent pairs; biases in the MLP and the output matrix.
#include "models/builder.h"
#include "models/config.h"

namespace nibble::models {

namespace {

Config config(const Metadata& m) { return read_config(m, {.pairing = Pairing::interleaved, .norm_eps = 1e-5}); }

Value block(Builder& b, Value x) {
  Value n = b.layer_norm(x, "attn_norm");
  Value attention = b.attention(n);
  return b.add(x, b.add(attention, b.mlp(n, Act::gelu_tanh)));
}

}  // namespace

Arch gptj_arch() {
  return {.name = "gptj",
          .model_types = {"gptj"},
          .examples = "GPT-J 6B",
          .config = config,
          .names = {{"embedding", "token_embd|transformer.wte"},
                    {"attn_norm", "blk.{}.attn_norm|transformer.h.{}.ln_1"},
                    {"q", "blk.{}.attn_q|transformer.h.{}.attn.q_proj"},
                    {"k", "blk.{}.attn_k|transformer.h.{}.attn.k_proj"},
                    {"v", "blk.{}.attn_v|transformer.h.{}.attn.v_proj"},
                    {"o", "blk.{}.attn_output|transformer.h.{}.attn.out_proj"},
                    {"up", "blk.{}.ffn_up|transformer.h.{}.mlp.fc_in"},
                    {"down", "blk.{}.ffn_down|transformer.h.{}.mlp.fc_out"},
                    {"output_norm", "output_norm|transformer.ln_f"},
                    {"output", "output|lm_head"}},
          .block = block,
          .head = layer_norm_head};
}

}  // namespace nibble::models
