// SPDX-License-Identifier: Apache-2.0
// clamped_swiglu: gate f (...), up f (...) of equal shape -> like gate: g sigmoid(alpha g) (u + 1) with g = min(gate,
// limit) and u = up clamped to +-limit (gpt-oss).
#include <algorithm>
#include <cmath>

#include "tensor/ops/support.h"

namespace nibble::ops {

namespace {

TensorDesc infer(std::span<const TensorDesc> in, const Attrs& attrs) {
  check_count(in, 2, 2);
  check_float(in[0], "gate");
  check_float(in[1], "up");
  check_shape(in[1], in[0].shape, "up");
  NIBBLE_CHECK(attrs.f("limit") > 0 && attrs.f("alpha") > 0, "limit and alpha: expected positive numbers");
  return {in[0].shape, in[0].dtype, nullptr};
}

void reference(const KernelArgs& args) {
  const Tensor &gate = args.in[0], &up = args.in[1], &out = args.out;
  const double limit = args.attrs->f("limit"), alpha = args.attrs->f("alpha");
  for (int64_t row = 0; row < row_count(out.desc.shape); ++row) {
    for (int64_t j = 0; j < row_size(out.desc.shape); ++j) {
      const double g = std::min(double{load_float(gate, row_offset(gate, row) + j * row_step(gate))}, limit);
      const double u = std::clamp(double{load_float(up, row_offset(up, row) + j * row_step(up))}, -limit, limit);
      store(out, row_offset(out, row) + j * row_step(out), g / (1 + std::exp(-alpha * g)) * (u + 1));
    }
  }
}

}  // namespace

extern const OpDef clamped_swiglu_op = {"clamped_swiglu", infer, reference};

}  // namespace nibble::ops
