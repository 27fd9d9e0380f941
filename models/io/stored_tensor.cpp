// SPDX-License-Identifier: Apache-2.0
#include "models/io/stored_tensor.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "models/io/coded_matrix.h"

namespace nibble::models {

namespace {

template <class T>
void convert(const std::byte* in, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, in + static_cast<size_t>(i) * sizeof(T), sizeof(T));
    out[i] = static_cast<float>(value);
  }
}

/// `mantissa` bits below the exponent's; `nan` is where the top exponent's numbers end (OCP 8-bit floats,
/// revision 1.0).
float f8_value(unsigned code, int mantissa, int bias, unsigned infinity) {
  const unsigned magnitude = code & 0x7f;
  const float sign = (code & 0x80) != 0 ? -1.0f : 1.0f;
  if (magnitude > infinity) return std::numeric_limits<float>::quiet_NaN();
  if (magnitude == infinity) return sign * std::numeric_limits<float>::infinity();
  const int exponent = static_cast<int>(magnitude >> mantissa);
  const unsigned fraction = magnitude & ((1u << mantissa) - 1);
  const unsigned whole = exponent == 0 ? fraction : fraction | 1u << mantissa;
  return sign * std::ldexp(static_cast<float>(whole), (exponent == 0 ? 1 : exponent) - bias - mantissa);
}

// E4M3 has no infinities and one NaN, so no magnitude is an infinity's; 0x7f is the NaN.
float e4m3(unsigned code) {
  return (code & 0x7f) == 0x7f ? std::numeric_limits<float>::quiet_NaN() : f8_value(code, 3, 7, 0x80);
}
float e5m2(unsigned code) { return f8_value(code, 2, 15, 0x7c); }

template <float (*value)(unsigned)>
void convert_f8(const std::byte* in, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = value(static_cast<unsigned>(in[i]));
}

constexpr ElementType element_types[] = {
    {"f64", 8, convert<double>, "f32"},        {"f8_e4m3", 1, convert_f8<e4m3>, "bf16"},
    {"f8_e5m2", 1, convert_f8<e5m2>, "bf16"},  {"bool", 1, convert<uint8_t>, "bf16"},
    {"i8", 1, convert<int8_t>, "bf16"},        {"u8", 1, convert<uint8_t>, "bf16"},
    {"i16", 2, convert<int16_t>, "f32"},       {"u16", 2, convert<uint16_t>, "f32"},
    {"i32", 4, convert<int32_t>, "f32"},       {"u32", 4, convert<uint32_t>, "f32"},
    {"i64", 8, convert<int64_t>, "f32"},       {"u64", 8, convert<uint64_t>, "f32"},
};

}  // namespace

const ElementType* find_element_type(std::string_view name) {
  for (const ElementType& type : element_types)
    if (type.name == name) return &type;
  return nullptr;
}

std::string_view StoredTensor::type_name() const {
  return coded != nullptr ? coded->type : type != nullptr ? type->name : element->name;
}

void to_floats(const StoredTensor& tensor, const std::byte* in, int64_t count, float* out) {
  if (tensor.type != nullptr) return quant::dequantize_blocks(*tensor.type, in, count, out);
  tensor.element->to_floats(in, count, out);
}

}  // namespace nibble::models
