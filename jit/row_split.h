// SPDX-License-Identifier: Apache-2.0
// What the elementwise kernels share: tensors as rows, how workers divide them, and their costs.
#pragma once

#include <algorithm>
#include <cstdint>

#include "tensor/kernel.h"

namespace nibble::jit {

/// A tensor as rows of its last dimension, one distance apart.
struct RowView {
  int64_t rows = 1, columns = 1, stride = 0;  ///< stride in elements
};
inline RowView row_view(const Tensor& t) {
  const Shape& shape = t.desc.shape;
  if (shape.rank() == 0) return {};
  return {shape[-1] == 0 ? 0 : shape.elements() / shape[-1], shape[-1], shape.rank() == 1 ? shape[0] : t.strides[-2]};
}

/// True when row_view says where every element is: columns side by side, outer dimensions evenly spaced.
inline bool even_rows(const Shape& shape, const Shape& strides) {
  if (shape.rank() == 0) return true;
  if (strides[-1] != 1 && shape[-1] > 1) return false;
  for (int d = 0; d + 2 < shape.rank(); ++d) {
    if (shape[d] > 1 && strides[d] != strides[d + 1] * shape[d + 1]) return false;
  }
  return true;
}

/// Inputs [0, count) are f32 with even rows.
inline const char* rejects_uneven(const Call& call, size_t count) {
  for (size_t i = 0; i < std::min(count, call.in.size()); ++i) {
    if (call.in[i].dtype != DType::f32) return "inputs must be f32";
    if (!even_rows(call.in[i].shape, call.strides[i])) return "rows must be evenly spaced with columns side by side";
  }
  return nullptr;
}

struct Part {
  int64_t row_begin, row_end, column_begin, column_end;
};
/// Waking a cache line on another core costs more than this many elements.
inline constexpr int64_t elements_worth_sharing = 4096;

/// The rows of one worker.
inline Part split_rows(const Worker& worker, int64_t rows, int64_t columns) {
  if (rows * columns < elements_worth_sharing) return {0, worker.index == 0 ? rows : 0, 0, columns};
  return {rows * worker.index / worker.count, rows * (worker.index + 1) / worker.count, 0, columns};
}
/// The rows, or the columns (in whole cache lines) of few long rows, of one worker.
inline Part split_elements(const Worker& worker, int64_t rows, int64_t columns) {
  if (rows >= worker.count || rows * columns < elements_worth_sharing) return split_rows(worker, rows, columns);
  const int64_t lines = (columns + 15) / 16;
  const auto at = [&](int64_t i) { return std::min(lines * i / worker.count * 16, columns); };
  return {0, rows, at(worker.index), at(worker.index + 1)};
}

/// Reading and writing f32 of in[0]'s size, `passes` times.
inline float row_cost(const Call& call, float passes = 2) {
  return 100 + passes * 4 * static_cast<float>(call.in[0].shape.elements()) / (10 * static_cast<float>(call.threads));
}

}  // namespace nibble::jit
