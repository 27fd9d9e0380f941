// SPDX-License-Identifier: Apache-2.0
// Element types and the scalar conversions between them (IEEE 754 binary16, bfloat16).
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace nibble {

/// `packed`: the bytes only make sense with TensorDesc::format.
enum class DType : uint8_t { f32, f16, bf16, i8, u8, i32, packed };

std::string_view name(DType type);

/// Bytes of one element; 0 for packed.
constexpr size_t element_bytes(DType type) {
  switch (type) {
    case DType::f32:
    case DType::i32: return 4;
    case DType::f16:
    case DType::bf16: return 2;
    case DType::i8:
    case DType::u8: return 1;
    case DType::packed: return 0;
  }
  return 0;
}

/// Exact for every input, infinities, subnormals and NaN payloads included.
float f16_to_f32(uint16_t bits);
/// Round to nearest even; overflow gives infinity.
uint16_t f32_to_f16(float value);
inline float bf16_to_f32(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
/// Round to nearest even; NaN stays NaN.
uint16_t f32_to_bf16(float value);

}  // namespace nibble
