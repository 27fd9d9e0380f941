// SPDX-License-Identifier: Apache-2.0
// What the float benches share: one kernel bound to tensors of its own, and the machine's FMA peak.
#pragma once

#include <string>
#include <vector>

#include "tensor/buffer.h"
#include "tests/jit/kernel_runner.h"

namespace nibble::bench {

/// f32 multiply-adds a second of one thread, times two: twelve independent AVX2 chains, the best of a few runs. Asked
/// once.
double fma_peak();

/// An op's inputs with memory of their own.
class Inputs {
 public:
  /// Uniform in [-1, 1).
  Tensor floats(const Shape& shape);
  Tensor f16(const Shape& shape);
  /// i8 pages of attention, codes and scales.
  Tensor codes(const Shape& shape);
  Tensor ints(const std::vector<int32_t>& values);
  /// A packed weight of random floats.
  Tensor packed(const std::string& format, int64_t n, int64_t k);
  std::vector<Tensor> all;

 private:
  Tensor add(const TensorDesc& desc);
  std::vector<Buffer> memory_;
};

/// jit's best kernel of an op for this machine: the first one of the highest instruction set that it supports.
std::string best_kernel(std::string_view op);

}  // namespace nibble::bench
