// SPDX-License-Identifier: Apache-2.0
// copy: x of any type but packed -> the same contiguous, converted when the attribute dtype names a type (floats round
// to nearest even, integers saturate).
// concat: a, b, ... of one type (not packed), equal in all dimensions but dim -> side by side along dim.
#include <string>

#include "tensor/ops/support.h"

namespace nibble::ops {

namespace {

DType parse_dtype(std::string_view text) {
  for (DType type : {DType::f32, DType::f16, DType::bf16, DType::i8, DType::u8, DType::i32}) {
    if (name(type) == text) return type;
  }
  fail("unknown dtype ", text, "; known are f32, f16, bf16, i8, u8, i32");
}

TensorDesc infer_copy(std::span<const TensorDesc> in, const Attrs& attrs) {
  check_count(in, 1, 1);
  NIBBLE_CHECK(in[0].dtype != DType::packed, "x: expected an unpacked type, found ", to_string(in[0]));
  const std::string dtype = attrs.s("dtype", "");
  return {in[0].shape, dtype.empty() ? in[0].dtype : parse_dtype(dtype), nullptr};
}

void copy(const KernelArgs& args) { copy_elements(args.in[0], args.out); }

TensorDesc infer_concat(std::span<const TensorDesc> in, const Attrs& attrs) {
  check_count(in, 1, 4096);
  NIBBLE_CHECK(in[0].dtype != DType::packed, "a: expected an unpacked type, found ", to_string(in[0]));
  TensorDesc out = in[0];
  const int dim = normalized_dim(attrs.i("dim"), out.shape);
  for (size_t i = 1; i < in.size(); ++i) {
    bool fits = in[i].dtype == out.dtype && in[i].shape.rank() == out.shape.rank();
    for (int d = 0; fits && d < out.shape.rank(); ++d) fits = d == dim || in[i].shape[d] == out.shape[d];
    NIBBLE_CHECK(fits, "input ", i, " ", to_string(in[i]), " does not fit ", to_string(in[0]), " along dimension ",
                 dim);
    out.shape[dim] += in[i].shape[dim];
  }
  return out;
}

void concat(const KernelArgs& args) {
  const int dim = normalized_dim(args.attrs->i("dim"), args.out.desc.shape);
  const int64_t size = static_cast<int64_t>(element_bytes(args.out.desc.dtype));
  Tensor part = args.out;
  for (const Tensor& in : args.in) {
    part.desc.shape[dim] = in.dim(dim);
    copy_elements(in, part);
    part.data += in.dim(dim) * part.strides[dim] * size;
  }
}

}  // namespace

extern const OpDef copy_op = {"copy", infer_copy, copy};
extern const OpDef concat_op = {"concat", infer_concat, concat};

}  // namespace nibble::ops
