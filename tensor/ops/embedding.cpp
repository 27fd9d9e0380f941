// SPDX-License-Identifier: Apache-2.0
// embedding: rows of a table by id. ids i32 (m), table f or packed (vocab, width) -> f32 (m, width).
// An id outside the vocabulary gives a row of zeros.
#include <vector>

#include "tensor/ops/support.h"

namespace nibble::ops {

namespace {

TensorDesc infer(std::span<const TensorDesc> in, const Attrs&) {
  check_count(in, 2, 2);
  check_dtype(in[0], DType::i32, "ids");
  check_rank(in[0], 1, "ids");
  check_rank(in[1], 2, "table");
  if (in[1].dtype != DType::packed) check_float(in[1], "table");
  return {{in[0].shape[0], in[1].shape[1]}, DType::f32, nullptr};
}

void packed_row(const Tensor& table, int64_t id, const Tensor& out, int64_t at) {
  const QuantFormat& format = *table.desc.format;
  const int64_t vocab = table.dim(0), width = table.dim(1), step = row_step(out);
  float* to = out.as<float>() + at;
  if (step == 1) return format.dequantize(format, table.data, vocab, width, id, 1, to);
  std::vector<float> row(static_cast<size_t>(width));
  format.dequantize(format, table.data, vocab, width, id, 1, row.data());
  for (int64_t i = 0; i < width; ++i) to[i * step] = row[i];
}

void reference(const KernelArgs& args) {
  const Tensor &ids = args.in[0], &table = args.in[1], &out = args.out;
  for (int64_t i = 0; i < out.dim(0); ++i) {
    const int64_t id = ids.as<const int32_t>()[i * ids.strides[0]], at = row_offset(out, i);
    const bool known = id >= 0 && id < table.dim(0);
    if (known && table.desc.dtype == DType::packed) {
      packed_row(table, id, out, at);
      continue;
    }
    for (int64_t j = 0; j < out.dim(1); ++j) {
      store(out, at + j * row_step(out), known ? load(table, row_offset(table, id) + j * row_step(table)) : 0.0);
    }
  }
}

}  // namespace

extern const OpDef embedding_op = {"embedding", infer, reference};

}  // namespace nibble::ops
