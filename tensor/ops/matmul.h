// SPDX-License-Identifier: Apache-2.0
// What matmul and matmul_q share: which input is what, shape inference, and the epilogue.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/ops/support.h"

namespace nibble::ops {

/// The attributes and inputs of one matmul or matmul_q: x, weights, [bias], [residual].
struct MatmulCall {
  int weights = 1;          ///< in[1] .. in[weights]
  int bias = 0;             ///< index of the input, 0 = none
  int residual = 0;         ///< index of the input, 0 = none
  Activation activation = Activation::none;
  Activation gate = Activation::none;  ///< not none: act(x wt1 + b1) * (x wt2 + b2)
};
/// Throws Error when attributes and number of inputs disagree.
MatmulCall matmul_call(size_t inputs, const Attrs& attrs);

/// Checks everything but the types of x and the weights; returns f32 (m, n).
TensorDesc infer_matmul(std::span<const TensorDesc> in, const Attrs& attrs);

/// Finishes out(i, column) from the f32 sums of its weight column (and of the gate's second weight): each step rounds
/// to f32: + bias, activation (or gate), + residual.
void finish_matmul(const MatmulCall& call, const KernelArgs& args, int64_t i, int64_t column, float sum, float gated);

/// Row `row` of x (f) times column `column` of a weight (f or packed); the sum as the reference of matmul takes it.
float dot_row(const Tensor& x, int64_t row, const Tensor& weight, int64_t column);
/// The same for quantised activations and weights: the reference of matmul_q.
float dot_row_q(const Tensor& x, int64_t row, const Tensor& weight, int64_t column);

}  // namespace nibble::ops
