// SPDX-License-Identifier: Apache-2.0
// softmax: x f (..., n) -> f32 of x's shape, exp(scale * x) over its sum along the last dimension. The maximum is taken
// out first, so large values are safe; -inf gives 0; a row that holds NaN or +inf, or only -inf, gives NaN.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/ops/support.h"

namespace nibble::ops {

namespace {

TensorDesc infer(std::span<const TensorDesc> in, const Attrs& attrs) {
  check_count(in, 1, 1);
  check_float(in[0], "x");
  NIBBLE_CHECK(in[0].shape.rank() >= 1, "x: expected at least 1 dimension, found ", to_string(in[0]));
  attrs.f("scale", 1.0);
  return {in[0].shape, DType::f32, nullptr};
}

void reference(const KernelArgs& args) {
  const Tensor &x = args.in[0], &out = args.out;
  const double scale = args.attrs->f("scale", 1.0);
  const int64_t n = row_size(out.desc.shape);
  for (int64_t row = 0; row < row_count(out.desc.shape); ++row) {
    const int64_t from = row_offset(x, row), to = row_offset(out, row);
    auto value = [&](int64_t j) { return scale * load(x, from + j * row_step(x)); };
    double max = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int64_t j = 0; j < n; ++j) max = std::max(max, value(j));
    for (int64_t j = 0; j < n; ++j) sum += std::exp(value(j) - max);
    for (int64_t j = 0; j < n; ++j) store(out, to + j * row_step(out), std::exp(value(j) - max) / sum);
  }
}

}  // namespace

extern const OpDef softmax_op = {"softmax", infer, reference};

}  // namespace nibble::ops
