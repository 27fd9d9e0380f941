// SPDX-License-Identifier: Apache-2.0
// columns: x f (m, n), index i32 (r) -> f32 (m, r): the chosen columns, in the order of index. An index outside x gives
// zeros.
#include "tensor/ops/support.h"

namespace nibble::ops {

namespace {

TensorDesc infer(std::span<const TensorDesc> in, const Attrs&) {
  check_choice(in);
  return {{in[0].shape[0], in[1].shape[0]}, DType::f32, nullptr};
}

void reference(const KernelArgs& args) {
  const Tensor &x = args.in[0], &index = args.in[1], &out = args.out;
  for (int64_t j = 0; j < out.dim(1); ++j) {
    const int64_t column = index.as<const int32_t>()[j * index.strides[0]];
    const bool known = column >= 0 && column < x.dim(1);
    for (int64_t i = 0; i < out.dim(0); ++i) {
      store(out, i * out.strides[0] + j * out.strides[1],
            known ? load(x, i * x.strides[0] + column * x.strides[1]) : 0.0);
    }
  }
}

}  // namespace

extern const OpDef columns_op = {"columns", infer, reference};

}  // namespace nibble::ops
