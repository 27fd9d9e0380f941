// SPDX-License-Identifier: Apache-2.0
// silu, gelu (exact, by erf), gelu_tanh, relu, tanh: x f (...) -> f32 of x's shape.
// clamp: x f (...), limit > 0 -> f32 of x's shape, between -limit and limit.
// add, mul: a f (...), b f of a's shape or with dimensions that are a suffix of a's -> f32 of a's shape.
#include <cmath>

#include "tensor/ops/support.h"

namespace nibble::ops {

namespace {

TensorDesc infer_unary(std::span<const TensorDesc> in, const Attrs&) {
  check_count(in, 1, 1);
  check_float(in[0], "x");
  return {in[0].shape, DType::f32, nullptr};
}

template <class Function>
void map(const KernelArgs& args, Function f) {
  const Tensor &x = args.in[0], &out = args.out;
  for (int64_t row = 0; row < row_count(out.desc.shape); ++row) {
    const int64_t from = row_offset(x, row), to = row_offset(out, row);
    for (int64_t j = 0; j < row_size(out.desc.shape); ++j) {
      store(out, to + j * row_step(out), f(load(x, from + j * row_step(x))));
    }
  }
}

template <Activation activation>
void unary(const KernelArgs& args) {
  map(args, [](double x) { return activate(activation, x); });
}

void tanh(const KernelArgs& args) {
  map(args, [](double x) { return std::tanh(x); });
}

TensorDesc infer_clamp(std::span<const TensorDesc> in, const Attrs& attrs) {
  NIBBLE_CHECK(attrs.f("limit") > 0, "limit ", attrs.f("limit"), ", expected a positive number");
  return infer_unary(in, attrs);
}

void clamp(const KernelArgs& args) {
  const double limit = args.attrs->f("limit");
  // NaN stays NaN
  map(args, [limit](double x) { return x > limit ? limit : x < -limit ? -limit : x; });
}

TensorDesc infer_binary(std::span<const TensorDesc> in, const Attrs&) {
  check_count(in, 2, 2);
  check_float(in[0], "a");
  check_float(in[1], "b");
  const Shape &a = in[0].shape, &b = in[1].shape;
  bool fits = b.rank() <= a.rank();
  for (int d = 1; fits && d <= b.rank(); ++d) fits = a[-d] == b[-d];
  NIBBLE_CHECK(fits, "b ", to_string(in[1]), ": expected a's shape or a suffix of it, a is ", to_string(in[0]));
  return {a, DType::f32, nullptr};
}

template <class Combine>
void binary(const KernelArgs& args, Combine combine) {
  const Tensor &a = args.in[0], &b = args.in[1], &out = args.out;
  const int64_t b_rows = row_count(b.desc.shape);
  for (int64_t row = 0; row < row_count(out.desc.shape); ++row) {
    const int64_t from = row_offset(a, row), with = row_offset(b, row % b_rows), to = row_offset(out, row);
    for (int64_t j = 0; j < row_size(out.desc.shape); ++j) {
      store(out, to + j * row_step(out), combine(load(a, from + j * row_step(a)), load(b, with + j * row_step(b))));
    }
  }
}

void add(const KernelArgs& args) {
  binary(args, [](double a, double b) { return a + b; });
}
void mul(const KernelArgs& args) {
  binary(args, [](double a, double b) { return a * b; });
}

}  // namespace

extern const OpDef silu_op = {"silu", infer_unary, unary<Activation::silu>};
extern const OpDef gelu_op = {"gelu", infer_unary, unary<Activation::gelu>};
extern const OpDef gelu_tanh_op = {"gelu_tanh", infer_unary, unary<Activation::gelu_tanh>};
extern const OpDef relu_op = {"relu", infer_unary, unary<Activation::relu>};
extern const OpDef tanh_op = {"tanh", infer_unary, tanh};
extern const OpDef clamp_op = {"clamp", infer_clamp, clamp};
extern const OpDef add_op = {"add", infer_binary, add};
extern const OpDef mul_op = {"mul", infer_binary, mul};

}  // namespace nibble::ops
