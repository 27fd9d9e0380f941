// SPDX-License-Identifier: Apache-2.0
// quantize: x f32 (m, k) -> activations act_g<group>_z<offset> (m, k) of `bits` (8 or 16), by quantize_act_row of
// tensor/panel.h. norm_quantize: the same after rms_norm or layer_norm of x (attribute norm), with the same bits as the
// two ops apart.
#include "tensor/ops/norm.h"
#include "tensor/panel.h"

namespace nibble::ops {

namespace {

TensorDesc infer_act(const TensorDesc& x, const Attrs& attrs) {
  check_dtype(x, DType::f32, "x");
  check_rank(x, 2, "x");
  const int64_t group = attrs.i("group"), offset = attrs.i("offset"), bits = attrs.i("bits", 8);
  NIBBLE_CHECK(group >= 16 && group <= 128 && offset >= 0 && offset <= 128 && bits >= 8 && bits <= 16, "group ", group,
               ", offset ", offset, ", bits ", bits, ": expected group 16 to 128, offset 0 to 128 and 8 or 16 bits");
  return {x.shape, DType::packed,
          &act_format({static_cast<int>(group), static_cast<int>(offset), static_cast<int>(bits)})};
}

TensorDesc infer(std::span<const TensorDesc> in, const Attrs& attrs) {
  check_count(in, 1, 1);
  return infer_act(in[0], attrs);
}

void quantize_row(const Tensor& out, int64_t i, FunctionRef<float(int64_t)> x) {
  quantize_act_row(act_needs_of(*out.desc.format), x, out.dim(0), out.dim(1), i, out.data);
}

void reference(const KernelArgs& args) {
  const Tensor& x = args.in[0];
  for (int64_t i = 0; i < x.dim(0); ++i) {
    quantize_row(args.out, i,
                 [&](int64_t j) { return x.as<const float>()[i * x.strides[0] + j * x.strides[1]]; });
  }
}

TensorDesc infer_norm(std::span<const TensorDesc> in, const Attrs& attrs) {
  check_norm_inputs(parse_norm(attrs.s("norm", "rms_norm")), in);
  attrs.f("eps");
  return infer_act(in[0], attrs);
}

void norm_reference(const KernelArgs& args) {
  const Norm norm = parse_norm(args.attrs->s("norm", "rms_norm"));
  const float eps = static_cast<float>(args.attrs->f("eps"));
  for (int64_t i = 0; i < args.out.dim(0); ++i) quantize_row(args.out, i, NormRow(norm, args.in, i, eps));
}

}  // namespace

extern const OpDef quantize_op = {"quantize", infer, reference};
extern const OpDef norm_quantize_op = {"norm_quantize", infer_norm, norm_reference};

}  // namespace nibble::ops
