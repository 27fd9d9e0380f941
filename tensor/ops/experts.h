// SPDX-License-Identifier: Apache-2.0
// What the ops of mixtures of experts share: the grouping of rows by expert, and the parts of a matmul_experts.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/ops/support.h"

namespace nibble::ops {

/// The result of group_experts. A pair is one expert chosen by one row: pair = row * chosen + place.
struct ExpertGroups {
  int64_t experts = 0, pairs = 0;
  const int32_t* begins = nullptr;  ///< (experts + 1) the grouped rows of expert e are begins[e] to begins[e + 1]
  const int32_t* pair = nullptr;    ///< (pairs) of each grouped row
  const int32_t* row = nullptr;     ///< (pairs) the grouped row of each pair

  int64_t rows(int64_t expert) const { return begins[expert + 1] - begins[expert]; }
};
ExpertGroups expert_groups(const Tensor& groups, int64_t experts);

/// The attributes and inputs of one matmul_experts or matmul_experts_q: x, weights, groups, [bias].
struct ExpertsCall {
  int weights = 1;           ///< in[1] .. in[weights]
  int groups = 0, bias = 0;  ///< indices of inputs; bias 0 = none
  int64_t experts = 0, n = 0, k = 0;
  int64_t rows = 0;          ///< of the result
  int64_t chosen = 1;        ///< experts of a token, all different
  bool grouped = false;
  Activation gate = Activation::none;

  int64_t tokens() const { return rows / chosen; }  ///< the most rows that one expert can have
  /// The row of x that a grouped row reads.
  int64_t source(const ExpertGroups& g, int64_t row) const { return grouped ? row : g.pair[row] / chosen; }
};
/// Throws Error when attributes and shapes disagree.
ExpertsCall experts_call(std::span<const TensorDesc> in, const Attrs& attrs);

/// One expert's (n, k) weight inside of a stack.
Tensor expert_weight(const Tensor& stack, const ExpertsCall& call, int64_t expert);

/// choose_experts and expert_weights for rows [begin, end); the former with that many floats of scratch.
int64_t choose_experts_scratch(const TensorDesc& logits);
void choose_experts_rows(const KernelArgs& args, int64_t begin, int64_t end, float* scratch);
void expert_weights_rows(const KernelArgs& args, int64_t begin, int64_t end);

}  // namespace nibble::ops
