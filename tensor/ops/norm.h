// SPDX-License-Identifier: Apache-2.0
// One row of rms_norm or layer_norm in f32, with the order of every operation fixed (docs/ops.md, "Same bits").
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "tensor/ops/support.h"

namespace nibble::ops {

enum class Norm : unsigned char { rms, layer };
/// "rms_norm" or "layer_norm"; throws Error otherwise.
Norm parse_norm(std::string_view name);

/// Checks x f (..., n) and what follows: [weight f (n) [, bias f (n)]]; a bias only for Norm::layer.
void check_norm_inputs(Norm norm, std::span<const TensorDesc> in);

/// What a row's elements are computed from; the sums are taken when it is made.
class NormRow {
 public:
  /// Row `row` of in[0]; in[1] and in[2] are weight and bias if present.
  NormRow(Norm norm, std::span<const Tensor> in, int64_t row, float eps);
  float operator()(int64_t j) const;

 private:
  float x(int64_t j) const { return load_float(in_[0], offset_ + j * step_); }
  Norm norm_;
  std::span<const Tensor> in_;
  int64_t offset_, step_;
  float mean_ = 0, inverse_ = 0;
};

}  // namespace nibble::ops
