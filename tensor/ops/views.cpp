// SPDX-License-Identifier: Apache-2.0
// Views of x (any type but packed); nothing is copied unless their reference is asked for.
// reshape: x contiguous, attributes rank and d0 .. d3, of which one may be -1.
// slice:   elements begin .. begin + size - 1 along dim (negative dim counts from the back).
// permute: dimension i of the result is dimension p_i of x, attributes p0 .. p3.
#include <string>

#include "tensor/ops/support.h"

namespace nibble::ops {

namespace {

void check_input(std::span<const TensorDesc> in) {
  check_count(in, 1, 1);
  NIBBLE_CHECK(in[0].dtype != DType::packed, "x: expected an unpacked type, found ", to_string(in[0]));
}

int64_t numbered(const Attrs& attrs, char letter, int i) {
  const char key[] = {letter, static_cast<char>('0' + i)};
  return attrs.i({key, 2});
}

Shape reshaped(const Shape& from, const Attrs& attrs) {
  const int64_t rank = attrs.i("rank");
  NIBBLE_CHECK(rank >= 1 && rank <= Shape::max_rank, "rank ", rank, ", expected 1 to ", Shape::max_rank);
  Shape shape;
  int64_t known = 1;
  int open = -1;
  for (int i = 0; i < rank; ++i) {
    const int64_t d = numbered(attrs, 'd', i);
    NIBBLE_CHECK(d >= 0 || (d == -1 && open < 0), "d", i, " = ", d, ": expected 0 or more, or one -1");
    if (d == -1) open = i;
    known *= d == -1 ? 1 : d;
    shape.push_back(d);
  }
  if (open >= 0) shape[open] = known == 0 ? 0 : from.elements() / known;
  NIBBLE_CHECK(shape.elements() == from.elements(), "x ", to_string(from), " does not fit ", to_string(shape));
  return shape;
}

TensorDesc infer_reshape(std::span<const TensorDesc> in, const Attrs& attrs) {
  check_input(in);
  return {reshaped(in[0].shape, attrs), in[0].dtype, nullptr};
}

Tensor view_reshape(const Tensor& in, const Attrs& attrs) {
  NIBBLE_CHECK(in.contiguous(), "reshape of a strided ", to_string(in.desc), ": copy it first");
  return Tensor({reshaped(in.desc.shape, attrs), in.desc.dtype, nullptr}, in.data);
}

TensorDesc infer_slice(std::span<const TensorDesc> in, const Attrs& attrs) {
  check_input(in);
  TensorDesc out = in[0];
  const int dim = normalized_dim(attrs.i("dim"), out.shape);
  const int64_t begin = attrs.i("begin"), size = attrs.i("size");
  NIBBLE_CHECK(begin >= 0 && size >= 0 && begin <= out.shape[dim] && size <= out.shape[dim] - begin, "slice of ", size,
               " from ", begin, " of dimension ", dim, " does not fit x ", to_string(in[0]));
  out.shape[dim] = size;
  return out;
}

Tensor view_slice(const Tensor& in, const Attrs& attrs) {
  Tensor out = in;
  const int dim = normalized_dim(attrs.i("dim"), in.desc.shape);
  out.desc.shape[dim] = attrs.i("size");
  out.data += attrs.i("begin") * in.strides[dim] * static_cast<int64_t>(element_bytes(in.desc.dtype));
  return out;
}

TensorDesc infer_permute(std::span<const TensorDesc> in, const Attrs& attrs) {
  check_input(in);
  TensorDesc out = in[0];
  unsigned seen = 0;
  for (int i = 0; i < out.shape.rank(); ++i) {
    const int64_t p = numbered(attrs, 'p', i);
    NIBBLE_CHECK(p >= 0 && p < out.shape.rank() && (seen >> p & 1u) == 0, "p", i, " = ", p, " of x ", to_string(in[0]),
                 ": expected every dimension once");
    seen |= 1u << p;
    out.shape[i] = in[0].shape[static_cast<int>(p)];
  }
  return out;
}

Tensor view_permute(const Tensor& in, const Attrs& attrs) {
  Tensor out = in;
  for (int i = 0; i < in.desc.shape.rank(); ++i) {
    const int p = static_cast<int>(numbered(attrs, 'p', i));
    out.desc.shape[i] = in.desc.shape[p];
    out.strides[i] = in.strides[p];
  }
  return out;
}

template <Tensor (*view)(const Tensor&, const Attrs&)>
void copy_view(const KernelArgs& args) {
  copy_elements(view(args.in[0], *args.attrs), args.out);
}

}  // namespace

extern const OpDef reshape_op = {"reshape", infer_reshape, copy_view<view_reshape>, view_reshape};
extern const OpDef slice_op = {"slice", infer_slice, copy_view<view_slice>, view_slice};
extern const OpDef permute_op = {"permute", infer_permute, copy_view<view_permute>, view_permute};

}  // namespace nibble::ops
