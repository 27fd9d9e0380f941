// SPDX-License-Identifier: Apache-2.0
// matmul: out = x wt^T for one or several weights side by side, with bias, activation or gate, and residual.
// x f (m, k), wt_i f or packed (n_i, k), bias f32 (sum n_i), residual f (m, n) -> f32 (m, n). Sums are taken in double
// and rounded to f32 before the epilogue, whose steps round to f32; unquantised packed weights and those with a
// codebook of floats are summed by fma in f32, k in order, as every kernel must.
#include "tensor/ops/matmul.h"

#include <cmath>

#include "tensor/panel.h"

namespace nibble::ops {

MatmulCall matmul_call(size_t inputs, const Attrs& attrs) {
  MatmulCall call;
  const int64_t weights = attrs.i("weights", 1);
  NIBBLE_CHECK(weights >= 1 && weights <= 64, "weights ", weights, ", expected 1 to 64");
  call.weights = static_cast<int>(weights);
  int next = 1 + call.weights;
  if (attrs.i("bias", 0)) call.bias = next++;
  if (attrs.i("residual", 0)) call.residual = next++;
  NIBBLE_CHECK(static_cast<int>(inputs) == next, "expected ", next, " inputs (x, ", weights, " weights",
               call.bias ? ", bias" : "", call.residual ? ", residual" : "", "), found ", inputs);
  call.activation = parse_activation(attrs.s("activation", ""));
  call.gate = parse_activation(attrs.s("gate", ""));
  NIBBLE_CHECK(call.gate == Activation::none || weights == 2, "gate needs 2 weights, found ", weights);
  NIBBLE_CHECK(call.gate == Activation::none || call.activation == Activation::none,
               "gate and activation exclude each other");
  return call;
}

TensorDesc infer_matmul(std::span<const TensorDesc> in, const Attrs& attrs) {
  const MatmulCall call = matmul_call(in.size(), attrs);
  check_rank(in[0], 2, "x");
  int64_t columns = 0;
  for (int w = 1; w <= call.weights; ++w) {
    check_rank(in[w], 2, "weight");
    NIBBLE_CHECK(in[w].shape[1] == in[0].shape[1], "x ", to_string(in[0]), " and weight ", to_string(in[w]),
                 " differ in k");
    columns += in[w].shape[0];
  }
  if (call.bias) {
    check_dtype(in[call.bias], DType::f32, "bias");
    check_shape(in[call.bias], {columns}, "bias");
  }
  if (call.gate != Activation::none) {
    NIBBLE_CHECK(in[1].shape == in[2].shape, "gate: weights ", to_string(in[1]), " and ", to_string(in[2]),
                 " differ in shape");
    columns = in[1].shape[0];
  }
  const TensorDesc out = {{in[0].shape[0], columns}, DType::f32, nullptr};
  if (call.residual) {
    check_float(in[call.residual], "residual");
    check_shape(in[call.residual], out.shape, "residual");
  }
  return out;
}

void finish_matmul(const MatmulCall& call, const KernelArgs& args, int64_t i, int64_t column, float sum, float gated) {
  if (call.bias) {
    const Tensor& bias = args.in[call.bias];
    sum += load_float(bias, column * bias.strides[0]);
    if (call.gate != Activation::none) gated += load_float(bias, (column + args.out.dim(1)) * bias.strides[0]);
  }
  if (call.gate != Activation::none) {
    sum = static_cast<float>(activate(call.gate, sum)) * gated;
  } else if (call.activation != Activation::none) {
    sum = static_cast<float>(activate(call.activation, sum));
  }
  if (call.residual) {
    const Tensor& residual = args.in[call.residual];
    sum += load_float(residual, i * residual.strides[0] + column * residual.strides[1]);
  }
  args.out.as<float>()[i * args.out.strides[0] + column * args.out.strides[1]] = sum;
}

namespace {

TensorDesc infer(std::span<const TensorDesc> in, const Attrs& attrs) {
  const TensorDesc out = infer_matmul(in, attrs);
  check_float(in[0], "x");
  for (int64_t w = 1; w <= attrs.i("weights", 1); ++w) {
    if (in[w].dtype != DType::packed) check_float(in[w], "weight");
    NIBBLE_CHECK(in[w].dtype != DType::packed || !is_act_format(*in[w].format),
                 "weight: expected a weight format, found ", to_string(in[w]));
  }
  return out;
}

float dot_dense(const Tensor& x, const Tensor& weight, int64_t i, int64_t column) {
  double sum = 0;
  for (int64_t j = 0; j < x.dim(1); ++j) {
    sum += load(x, i * x.strides[0] + j * x.strides[1]) *
           load(weight, column * weight.strides[0] + j * weight.strides[1]);
  }
  return static_cast<float>(sum);
}

float dot_packed(const Tensor& x, const Tensor& weight, const PanelGeometry& geometry, int64_t i, int64_t column) {
  const QuantLayout& layout = weight.desc.format->layout;
  const std::byte* panel = weight.data + column / panel_columns * static_cast<int64_t>(geometry.panel_bytes);
  const int c = static_cast<int>(column % panel_columns);
  double sum = 0;
  float total = 0;
  for (int64_t j = 0; j < x.dim(1); ++j) {
    const float value = load_float(x, i * x.strides[0] + j * x.strides[1]);
    if (float_weights(layout)) {
      const float w = layout.bits == 0 ? panel_float(layout, panel, j, c) : panel_weight(layout, geometry, panel, j, c);
      total = std::fma(value, w, total);
    } else {
      sum += static_cast<double>(value) * panel_weight(layout, geometry, panel, j, c);
    }
  }
  return float_weights(layout) ? total : static_cast<float>(sum);
}

void reference(const KernelArgs& args) {
  const MatmulCall call = matmul_call(args.in.size(), *args.attrs);
  const bool gate = call.gate != Activation::none;
  const Tensor& x = args.in[0];
  int64_t begin = 0;
  for (int w = 1; w <= (gate ? 1 : call.weights); ++w) {
    const Tensor& weight = args.in[w];
    PanelGeometry geometry[2];
    for (int g = 0; g < (gate ? 2 : 1); ++g) {
      const TensorDesc& desc = args.in[w + g].desc;
      if (desc.dtype == DType::packed) geometry[g] = panel_geometry(desc.format->layout, desc.shape[0], desc.shape[1]);
    }
    auto dot = [&](int g, int64_t i, int64_t column) {
      const Tensor& wt = args.in[w + g];
      return wt.desc.dtype == DType::packed ? dot_packed(x, wt, geometry[g], i, column) : dot_dense(x, wt, i, column);
    };
    for (int64_t i = 0; i < x.dim(0); ++i) {
      for (int64_t column = 0; column < weight.dim(0); ++column) {
        finish_matmul(call, args, i, begin + column, dot(0, i, column), gate ? dot(1, i, column) : 0.0f);
      }
    }
    begin += weight.dim(0);
  }
}

}  // namespace

float dot_row(const Tensor& x, int64_t row, const Tensor& weight, int64_t column) {
  if (weight.desc.dtype != DType::packed) return dot_dense(x, weight, row, column);
  return dot_packed(x, weight, panel_geometry(weight.desc.format->layout, weight.dim(0), weight.dim(1)), row, column);
}

extern const OpDef matmul_op = {"matmul", infer, reference};

}  // namespace nibble::ops
