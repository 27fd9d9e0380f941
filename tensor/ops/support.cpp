// SPDX-License-Identifier: Apache-2.0
#include "tensor/ops/support.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numbers>

namespace nibble::ops {

namespace {

template <class T>
T saturate(double value) {
  if (std::isnan(value)) return 0;
  const double low = std::numeric_limits<T>::min(), high = std::numeric_limits<T>::max();
  return static_cast<T>(std::clamp(std::nearbyint(value), low, high));
}

}  // namespace

float load_float(const Tensor& t, int64_t offset) {
  switch (t.desc.dtype) {
    case DType::f32: return t.as<const float>()[offset];
    case DType::f16: return f16_to_f32(t.as<const uint16_t>()[offset]);
    case DType::bf16: return bf16_to_f32(t.as<const uint16_t>()[offset]);
    default: return 0;
  }
}

double load(const Tensor& t, int64_t offset) {
  switch (t.desc.dtype) {
    case DType::i32: return t.as<const int32_t>()[offset];
    case DType::i8: return t.as<const int8_t>()[offset];
    case DType::u8: return t.as<const uint8_t>()[offset];
    default: return load_float(t, offset);
  }
}

void store(const Tensor& t, int64_t offset, double value) {
  switch (t.desc.dtype) {
    case DType::f32: t.as<float>()[offset] = static_cast<float>(value); return;
    case DType::f16: t.as<uint16_t>()[offset] = f32_to_f16(static_cast<float>(value)); return;
    case DType::bf16: t.as<uint16_t>()[offset] = f32_to_bf16(static_cast<float>(value)); return;
    case DType::i32: t.as<int32_t>()[offset] = saturate<int32_t>(value); return;
    case DType::i8: t.as<int8_t>()[offset] = saturate<int8_t>(value); return;
    case DType::u8: t.as<uint8_t>()[offset] = saturate<uint8_t>(value); return;
    case DType::packed: return;
  }
}

int64_t row_count(const Shape& shape) {
  int64_t rows = 1;
  for (int d = 0; d + 1 < shape.rank(); ++d) rows *= shape[d];
  return rows;
}

int64_t row_size(const Shape& shape) { return shape.rank() == 0 ? 1 : shape[-1]; }

int64_t row_offset(const Tensor& t, int64_t row) {
  int64_t offset = 0;
  for (int d = t.desc.shape.rank() - 2; d >= 0; --d) {
    offset += row % t.desc.shape[d] * t.strides[d];
    row /= t.desc.shape[d];
  }
  return offset;
}

void copy_elements(const Tensor& src, const Tensor& dst) {
  const int64_t rows = row_count(src.desc.shape), size = row_size(src.desc.shape);
  const size_t bytes = src.desc.dtype == dst.desc.dtype ? element_bytes(src.desc.dtype) : 0;
  for (int64_t r = 0; r < rows && size > 0; ++r) {
    const int64_t from = row_offset(src, r), to = row_offset(dst, r);
    for (int64_t i = 0; i < size; ++i) {
      const int64_t s = from + i * row_step(src), d = to + i * row_step(dst);
      if (bytes != 0) {
        std::memcpy(dst.data + d * static_cast<int64_t>(bytes), src.data + s * static_cast<int64_t>(bytes), bytes);
      } else {
        store(dst, d, load(src, s));
      }
    }
  }
}

void check_count(std::span<const TensorDesc> in, size_t least, size_t most) {
  NIBBLE_CHECK(in.size() >= least && in.size() <= most, "expected ", least,
               least == most ? "" : message(" to ", most), " inputs, found ", in.size());
}

void check_float(const TensorDesc& desc, std::string_view what) {
  NIBBLE_CHECK(is_float(desc.dtype), what, ": expected f32, f16 or bf16, found ", to_string(desc));
}

void check_dtype(const TensorDesc& desc, DType dtype, std::string_view what) {
  NIBBLE_CHECK(desc.dtype == dtype, what, ": expected ", name(dtype), ", found ", to_string(desc));
}

void check_rank(const TensorDesc& desc, int rank, std::string_view what) {
  NIBBLE_CHECK(desc.shape.rank() == rank, what, ": expected ", rank, " dimensions, found ", to_string(desc));
}

void check_shape(const TensorDesc& desc, const Shape& shape, std::string_view what) {
  NIBBLE_CHECK(desc.shape == shape, what, ": expected ", to_string(shape), ", found ", to_string(desc));
}

void check_choice(std::span<const TensorDesc> in) {
  check_count(in, 2, 2);
  check_float(in[0], "x");
  check_rank(in[0], 2, "x");
  check_dtype(in[1], DType::i32, "index");
  check_rank(in[1], 1, "index");
}

int normalized_dim(int64_t dim, const Shape& shape) {
  NIBBLE_CHECK(dim >= -shape.rank() && dim < shape.rank(), "dim ", dim, " of shape ", to_string(shape));
  return static_cast<int>(dim < 0 ? dim + shape.rank() : dim);
}

Activation parse_activation(std::string_view name) {
  if (name.empty()) return Activation::none;
  if (name == "silu") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_tanh") return Activation::gelu_tanh;
  if (name == "relu") return Activation::relu;
  fail("unknown activation ", name, "; known are silu, gelu, gelu_tanh, relu");
}

double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::none: return x;
    case Activation::silu: return x / (1 + std::exp(-x));
    case Activation::gelu: return 0.5 * x * (1 + std::erf(x * std::numbers::sqrt2 / 2));
    case Activation::gelu_tanh: {
      const double inner = std::sqrt(2 * std::numbers::inv_pi) * (x + 0.044715 * x * x * x);
      return 0.5 * x * (1 + std::tanh(inner));
    }
    case Activation::relu: return x < 0 ? 0 : x;  // NaN stays NaN
  }
  return x;
}

}  // namespace nibble::ops
