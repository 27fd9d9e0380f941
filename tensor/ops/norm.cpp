// SPDX-License-Identifier: Apache-2.0
#include "tensor/ops/norm.h"

#include <cmath>

namespace nibble::ops {

namespace {

constexpr int lanes = 16;

/// Lane j adds elements j, j + 16, ... (add(value, lane) -> lane); then lanes i and i + 8 are added, i + 4, + 2, + 1.
template <class Add>
float lane_sum(int64_t n, Add add) {
  float lane[lanes] = {};
  for (int64_t j = 0; j < n; ++j) lane[j % lanes] = add(j, lane[j % lanes]);
  for (int width = lanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  }
  return lane[0];
}

}  // namespace

Norm parse_norm(std::string_view name) {
  if (name == "rms_norm") return Norm::rms;
  if (name == "layer_norm") return Norm::layer;
  fail("unknown norm ", name, "; known are rms_norm, layer_norm");
}

void check_norm_inputs(Norm norm, std::span<const TensorDesc> in) {
  check_count(in, 1, norm == Norm::rms ? 2 : 3);
  check_float(in[0], "x");
  NIBBLE_CHECK(in[0].shape.rank() >= 1, "x: expected at least 1 dimension, found ", to_string(in[0]));
  constexpr std::string_view names[] = {"x", "weight", "bias"};
  for (size_t i = 1; i < in.size(); ++i) {
    check_float(in[i], names[i]);
    check_shape(in[i], {in[0].shape[-1]}, names[i]);
  }
}

NormRow::NormRow(Norm norm, std::span<const Tensor> in, int64_t row, float eps)
    : norm_(norm), in_(in), offset_(row_offset(in[0], row)), step_(row_step(in[0])) {
  const int64_t n = row_size(in[0].desc.shape);
  const float count = static_cast<float>(n);
  if (norm == Norm::layer) mean_ = lane_sum(n, [this](int64_t j, float sum) { return sum + x(j); }) / count;
  const float squares = lane_sum(n, [this](int64_t j, float sum) {
    const float d = x(j) - mean_;  // mean_ is 0 for rms_norm, and x - 0 is x
    return std::fma(d, d, sum);
  });
  inverse_ = 1.0f / std::sqrt(squares / count + eps);
}

float NormRow::operator()(int64_t j) const {
  const float y = (norm_ == Norm::layer ? x(j) - mean_ : x(j)) * inverse_;
  if (in_.size() == 1) return y;
  const float w = load_float(in_[1], j * in_[1].strides[0]);
  if (in_.size() == 2) return y * w;
  return std::fma(y, w, load_float(in_[2], j * in_[2].strides[0]));
}

}  // namespace nibble::ops
