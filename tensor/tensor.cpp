// SPDX-License-Identifier: Apache-2.0
#include "tensor/tensor.h"

#include "tensor/check.h"

namespace nibble {

std::string to_string(const Shape& shape) {
  std::string text = "(";
  for (int i = 0; i < shape.rank(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + ")";
}

Shape contiguous_strides(const Shape& shape) {
  Shape strides = shape;
  int64_t stride = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[i] = stride;
    stride *= shape[i];
  }
  return strides;
}

std::string to_string(const TensorDesc& desc) {
  const std::string_view type = desc.dtype == DType::packed && desc.format ? desc.format->name : name(desc.dtype);
  return std::string(type) + " " + to_string(desc.shape);
}

size_t bytes(const TensorDesc& desc) {
  for (int i = 0; i < desc.shape.rank(); ++i) {
    NIBBLE_CHECK(desc.shape[i] >= 0, "tensor ", to_string(desc), ": expected dimensions from 0");
  }
  if (desc.dtype == DType::packed) {
    NIBBLE_CHECK(desc.format, "packed tensor ", to_string(desc), " has no format");
    NIBBLE_CHECK(desc.shape.rank() == 2, "packed tensor ", to_string(desc), ": expected 2 dimensions");
    return desc.format->bytes(*desc.format, desc.shape[0], desc.shape[1]);
  }
  size_t total = element_bytes(desc.dtype);
  for (int i = 0; i < desc.shape.rank(); ++i) {
    NIBBLE_CHECK(!__builtin_mul_overflow(total, static_cast<size_t>(desc.shape[i]), &total), "tensor ",
                 to_string(desc), " is too large");
  }
  return total;
}

}  // namespace nibble
