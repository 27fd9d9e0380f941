// SPDX-License-Identifier: Apache-2.0
// Shapes, descriptions and non-owning views of tensors.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "tensor/dtype.h"
#include "tensor/packed.h"

namespace nibble {

/// Up to four dimensions, outermost first; also used for strides (in elements).
class Shape {
 public:
  static constexpr int max_rank = 4;
  constexpr Shape() = default;
  constexpr Shape(std::initializer_list<int64_t> dims) {
    for (int64_t d : dims) dims_[rank_++] = d;
  }
  constexpr int rank() const { return rank_; }
  constexpr int64_t operator[](int i) const { return dims_[i < 0 ? rank_ + i : i]; }  ///< -1 is the innermost
  constexpr int64_t& operator[](int i) { return dims_[i < 0 ? rank_ + i : i]; }
  constexpr void push_back(int64_t d) { dims_[rank_++] = d; }
  constexpr int64_t elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= dims_[i];
    return n;
  }
  constexpr bool operator==(const Shape&) const = default;

 private:
  std::array<int64_t, max_rank> dims_{};
  int rank_ = 0;
};

std::string to_string(const Shape& shape);  ///< "(2, 3)"
Shape contiguous_strides(const Shape& shape);

/// For DType::packed the shape is the logical (n, k) and `format` says how the bytes are laid out.
struct TensorDesc {
  Shape shape;
  DType dtype = DType::f32;
  const QuantFormat* format = nullptr;
  bool operator==(const TensorDesc&) const = default;
};

std::string to_string(const TensorDesc& desc);  ///< "f32 (2, 3)", "q4_0 (4096, 4096)"
/// Bytes of a contiguous tensor of this description.
size_t bytes(const TensorDesc& desc);

/// A view; never owns. Strides are in elements; a packed tensor is always whole (strides unused).
struct Tensor {
  TensorDesc desc;
  Shape strides;
  std::byte* data = nullptr;

  Tensor() = default;
  Tensor(TensorDesc d, void* p)
      : desc(d), strides(contiguous_strides(d.shape)), data(static_cast<std::byte*>(p)) {}

  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data);
  }
  int64_t dim(int i) const { return desc.shape[i]; }
  bool contiguous() const { return strides == contiguous_strides(desc.shape); }
};

}  // namespace nibble
