// SPDX-License-Identifier: Apache-2.0
// Which format each weight gets when a model is quantised while it is loaded. Rounded to nearest, group by group.
//
//   - Only matrices of floats are quantised: what is quantised in the file stays as it is, and so do vectors, routers
//   of
//     experts and position embeddings (they are small, and errors in them cost most).
//   - The embedding and the output head get at least 6 bits (q6s_g64): they are read by every token's logits.
//   - Where rows do not divide into the format's groups, the next of its width with smaller groups is taken, then 8
//   bits
//     in groups of 32, and if that does not fit either the weight stays as it is.
#pragma once

#include <string>
#include <string_view>

#include "tensor/packed.h"

namespace nibble::models {

class QuantizeRule {
 public:
  /// Keeps every weight exactly.
  QuantizeRule() = default;
  /// A format by its name (quant/format_list.inc), weights as in int4:g128:sym:f16 (quant/spec.h), or q2, q3, q4, q5,
  /// q6, q8, nf4, bf16, f16 for the usual one of that width; "" keeps everything. Throws Error for others, naming the
  /// known ones, and for formats that only come from files.
  explicit QuantizeRule(std::string_view name);
  /// Makes f16 of quantised matrices and keeps floats: for changing weights and seeing what comes of it.
  static QuantizeRule floats();

  /// The format of the weight `name` of k columns whose exact format is `exact`.
  const QuantFormat& choose(std::string_view name, int64_t k, const QuantFormat& exact) const;

 private:
  const QuantFormat* wanted_ = nullptr;
  bool floats_ = false;
};

}  // namespace nibble::models
