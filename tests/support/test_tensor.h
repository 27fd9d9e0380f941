// SPDX-License-Identifier: Apache-2.0
// Tensors that own their memory, and running a single op's reference on them.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "tensor/graph.h"
#include "tensor/tensor.h"

namespace nibble::test {

/// A tensor with its own zeroed, 64-byte aligned memory. Move only; the view stays valid when moved.
class TestTensor {
 public:
  explicit TestTensor(const TensorDesc& desc);
  /// Values rounded to the type (to nearest even).
  TestTensor(const Shape& shape, DType dtype, std::span<const float> values);
  TestTensor(const Shape& shape, std::span<const int32_t> values);  ///< i32
  /// Same values with gaps: inner stride 2, every outer dimension padded by one; gaps are NaN or 0x7e bytes.
  TestTensor strided() const;

  const Tensor& tensor() const { return tensor_; }
  operator const Tensor&() const { return tensor_; }  // NOLINT: tests pass it as a Tensor
  std::vector<float> floats() const;   ///< row-major, from f32, f16 or bf16
  std::vector<int32_t> ints() const;   ///< from i32

 private:
  TestTensor() = default;
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  std::vector<Line> memory_;
  Tensor tensor_;
};

/// All elements, row-major, of any type; packed ones dequantised.
std::vector<double> values(const Tensor& tensor);

/// Infers the result, runs the op's reference and returns it. Throws what infer throws.
TestTensor run_reference(std::string_view op, std::span<const Tensor> in, const Attrs& attrs = {});
inline TestTensor run_reference(std::string_view op, std::initializer_list<Tensor> in, const Attrs& attrs = {}) {
  return run_reference(op, std::span<const Tensor>(in.begin(), in.size()), attrs);
}
/// The same into an existing (perhaps strided) result.
void run_reference_into(std::string_view op, std::span<const Tensor> in, const Tensor& out, const Attrs& attrs = {});

}  // namespace nibble::test
