// SPDX-License-Identifier: Apache-2.0
// rms_norm: x / sqrt(mean(x^2) + eps) * weight. layer_norm: (x - mean) / sqrt(variance + eps) * weight + bias.
// x f (..., n), weight and bias f (n), both optional -> f32 of x's shape, over the last dimension. Computed in f32 with
// a fixed order (docs/ops.md, "Same bits"), so that norm_quantize gives the same bits as norm and quantize apart.
#include "tensor/ops/norm.h"

namespace nibble::ops {

namespace {

template <Norm norm>
TensorDesc infer(std::span<const TensorDesc> in, const Attrs& attrs) {
  check_norm_inputs(norm, in);
  attrs.f("eps");
  return {in[0].shape, DType::f32, nullptr};
}

template <Norm norm>
void reference(const KernelArgs& args) {
  const Tensor& out = args.out;
  const float eps = static_cast<float>(args.attrs->f("eps"));
  const int64_t n = row_size(out.desc.shape);
  for (int64_t row = 0; n > 0 && row < row_count(out.desc.shape); ++row) {
    const NormRow y(norm, args.in, row, eps);
    const int64_t at = row_offset(out, row);
    for (int64_t j = 0; j < n; ++j) out.as<float>()[at + j * row_step(out)] = y(j);
  }
}

}  // namespace

extern const OpDef rms_norm_op = {"rms_norm", infer<Norm::rms>, reference<Norm::rms>};
extern const OpDef layer_norm_op = {"layer_norm", infer<Norm::layer>, reference<Norm::layer>};

}  // namespace nibble::ops
