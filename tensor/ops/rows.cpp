// SPDX-License-Identifier: Apache-2.0
// rows: x f (m, n), index i32 (r) -> f32 (r, n): the chosen rows, in the order of index. An index outside x gives
// zeros.
#include "tensor/ops/support.h"

namespace nibble::ops {

namespace {

TensorDesc infer(std::span<const TensorDesc> in, const Attrs&) {
  check_choice(in);
  return {{in[1].shape[0], in[0].shape[1]}, DType::f32, nullptr};
}

void reference(const KernelArgs& args) {
  const Tensor &x = args.in[0], &index = args.in[1], &out = args.out;
  for (int64_t i = 0; i < out.dim(0); ++i) {
    const int64_t row = index.as<const int32_t>()[i * index.strides[0]];
    const bool known = row >= 0 && row < x.dim(0);
    for (int64_t j = 0; j < out.dim(1); ++j) {
      store(out, i * out.strides[0] + j * out.strides[1],
            known ? load(x, row * x.strides[0] + j * x.strides[1]) : 0.0);
    }
  }
}

}  // namespace

extern const OpDef rows_op = {"rows", infer, reference};

}  // namespace nibble::ops
