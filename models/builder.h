// SPDX-License-Identifier: Apache-2.0
// The shared graph builder. Architecture files write their block with these verbs; a verb takes at most one options
// struct, and gets its weights by short name from the architecture's list. A bias is added if the file has one.
#pragma once

#include <string>
#include <string_view>

#include "models/arch.h"
#include "models/weights.h"
#include "tensor/graph.h"

namespace nibble::models {

enum class Norm : unsigned char { none, rms, layer };

/// What the configuration does not say; window, rope, ALiBi, scale and soft cap are Config's.
struct AttentionOptions {
  /// Of q and k before the rope, by "q_norm" and "k_norm" if the file has them: over each head, with one weight vector
  /// for all heads or one for each.
  Norm qk_norm = Norm::none;
  bool qk_norm_rows = false;  ///< over all heads at once
};

class Builder {
 public:
  /// One graph: m token rows in, r rows of logits out. Inputs in this order: ids i32 (m), positions i32 (m),
  /// sequence i32 (m), page_table i32 (sequences, max_pages), logit rows i32 (r), with Config::prefix also ends and the
  /// two positions, i32 (m) each, then k_pages and v_pages of every layer. Output: f32 (r, vocab).
  struct Sizes {
    int rows, logit_rows, sequences, max_pages, pages;
    DType cache = DType::f16;  ///< type of the pages
  };
  static Graph build(const Arch& arch, const Config& config, const Weights& weights, const Sizes& sizes);

  const Config& config() const;
  int layer() const;  ///< -1 in head()

  Value rms_norm(Value x, std::string_view weight);
  Value layer_norm(Value x, std::string_view weight);
  Value linear(Value x, std::string_view weight);
  Value add(Value a, Value b);
  Value scale(Value x, float factor);
  bool has(std::string_view weight) const;  ///< for weights that the architecture lists as optional

  /// Rows of the matrix "embedding" times Config::embedding_scale.
  Value embedding();
  /// Rows of the matrix "position_embedding", learned positions.
  Value position_embedding();
  /// With the weights q, k, v, o, and sinks if the file has them.
  Value attention(Value x, const AttentionOptions& options = {});
  /// What attention() does with q, k and v of its own: stores k and v, attends, multiplies with o.
  Value attend(Value q, Value k, Value v);
  /// Rotates Config::rope_dim elements of each head (of `head_dim`) from `begin` on.
  Value rope(Value x, int head_dim, int begin = 0);
  /// attend() where keys and values are Config::latent values times each head's "k" and "v", and keys end in `rotated`,
  /// which heads share. The cache keeps latent and rotated: queries are multiplied by k, results by v.
  Value attend_latent(Value q, Value latent, Value rotated);
  /// down(act(up(x)))
  Value mlp(Value x, Act act);
  /// down(act(gate(x)) * up(x))
  Value mlp_gated(Value x, Act act);
  /// Config::experts with the weights router, gate_experts, up_experts, down_experts and, if the file has them,
  /// router_choice (a bias that only counts in the choice) and shared_gate, shared_up, shared_down: an expert that all
  /// rows take, weighted by sigmoid(shared_router) if there is such a weight.
  Value moe(Value x);
  /// moe where the layer has a router, else mlp_gated.
  Value moe_or_mlp(Value x);
  /// The output matrix "output", the token embedding when the file ties them; then Config::logit_scale and
  /// logit_softcap.
  Value logits(Value x);

 private:
  struct Impl;
  explicit Builder(Impl& impl) : impl_(impl) {}
  Impl& impl_;
};

/// For Arch::head: LayerNorm "output_norm", then the logits.
inline Value layer_norm_head(Builder& b, Value x) { return b.logits(b.layer_norm(x, "output_norm")); }

}  // namespace nibble::models
