// SPDX-License-Identifier: Apache-2.0
// argmax: x f (..., n), n >= 1 -> i32 (...): the lowest index of the maximum along the last dimension. NaN never wins;
// a row of NaN gives 0.
#include "tensor/ops/support.h"

namespace nibble::ops {

namespace {

TensorDesc infer(std::span<const TensorDesc> in, const Attrs&) {
  check_count(in, 1, 1);
  check_float(in[0], "x");
  NIBBLE_CHECK(in[0].shape.rank() >= 1 && in[0].shape[-1] >= 1, "x: expected a last dimension from 1, found ",
               to_string(in[0]));
  Shape shape;
  for (int d = 0; d + 1 < in[0].shape.rank(); ++d) shape.push_back(in[0].shape[d]);
  return {shape, DType::i32, nullptr};
}

void reference(const KernelArgs& args) {
  const Tensor &x = args.in[0], &out = args.out;
  const int64_t inner = out.desc.shape.rank() == 0 ? 1 : out.dim(-1);
  for (int64_t row = 0; row < row_count(x.desc.shape); ++row) {
    const int64_t from = row_offset(x, row);
    int64_t best = -1;
    for (int64_t j = 0; j < x.dim(-1); ++j) {
      const float value = load_float(x, from + j * row_step(x));
      if (value == value && (best < 0 || value > load_float(x, from + best * row_step(x)))) best = j;
    }
    store(out, row_offset(out, row / inner) + row % inner * row_step(out), static_cast<double>(best < 0 ? 0 : best));
  }
}

}  // namespace

extern const OpDef argmax_op = {"argmax", infer, reference};

}  // namespace nibble::ops
