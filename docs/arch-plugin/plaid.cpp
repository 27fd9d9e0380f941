// SPDX-License-Identifier: Apache-2.0
// An architecture in a shared object: files that say general.architecture = plaid, or model_type = plaid.
#include "models/plugin.h"

namespace {

using namespace nibble::models;
using nibble::Value;

Config config(const Metadata& m) { return read_config(m, {.reordered_in_gguf = true}); }

Value block(Builder& b, Value x) {
  x = b.add(x, b.attention(b.rms_norm(x, "attn_norm")));
  return b.add(x, b.mlp_gated(b.rms_norm(x, "ffn_norm"), Act::silu));
}

Arch plaid_arch() {
  return {.name = "plaid",
          .model_types = {"plaid"},
          .examples = "Plaid 3M",
          .proof = "the author's word",
          .config = config,
          .names = llama_names(),
          .block = block};
}

}  // namespace

NIBBLE_ARCH_PLUGIN(plaid_arch)
