// SPDX-License-Identifier: Apache-2.0
// What the files of this folder share: the declarations made from format_list.inc and loads from unaligned blocks.
#pragma once

#include <cmath>
#include <cstring>

#include "quant/format.h"
#include "tensor/dtype.h"

namespace nibble::quant {

/// QuantFormat::bytes and QuantFormat::dequantize of every weight format; all they need is the layout.
size_t packed_bytes(const QuantFormat& format, int64_t n, int64_t k);
void dequantize_packed(const QuantFormat& format, const std::byte* data, int64_t n, int64_t k, int64_t row,
                       int64_t rows, float* out);

/// A scale as it is stored: f16, bf16, or else as it is.
inline float rounded_to(DType type, float value) {
  switch (type) {
    case DType::f16: return f16_to_f32(f32_to_f16(value));
    case DType::bf16: return bf16_to_f32(f32_to_bf16(value));
    default: return value;
  }
}

constexpr QuantFormat weight_format(std::string_view name, const QuantLayout& layout) {
  return {.name = name, .layout = layout, .bytes = packed_bytes, .dequantize = dequantize_packed};
}

namespace formats {
#define NIBBLE_FORMAT(name) extern const QuantFormat name;
#define NIBBLE_BLOCK_TYPE(name)
#include "quant/format_list.inc"
#undef NIBBLE_FORMAT
#undef NIBBLE_BLOCK_TYPE
}  // namespace formats

namespace types {
#define NIBBLE_FORMAT(name)
#define NIBBLE_BLOCK_TYPE(name) extern const BlockType name;
#include "quant/format_list.inc"
#undef NIBBLE_FORMAT
#undef NIBBLE_BLOCK_TYPE
}  // namespace types

template <class T>
T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}
template <class T>
void store(std::byte* p, T value) {
  std::memcpy(p, &value, sizeof value);
}
inline float load_f16(const std::byte* p) { return f16_to_f32(load<uint16_t>(p)); }
inline void store_f16(std::byte* p, float value) { store(p, f32_to_f16(value)); }

/// Elements 0..15 from the low nibbles of 16 bytes, 16..31 from the high ones.
inline void load_nibbles(const std::byte* p, uint8_t* codes) {
  for (int j = 0; j < 16; ++j) {
    const auto byte = static_cast<uint8_t>(p[j]);
    codes[j] = byte & 0x0f;
    codes[j + 16] = byte >> 4;
  }
}

/// 256 elements of two bits: element 128h + 32p + i is bits 2p+1..2p of byte 32h + i.
inline void load_two_bits(const std::byte* p, uint8_t* codes) {
  for (int half = 0; half < 2; ++half, p += 32) {
    for (int part = 0; part < 4; ++part, codes += 32) {
      for (int i = 0; i < 32; ++i) codes[i] = static_cast<uint8_t>(static_cast<uint8_t>(p[i]) >> (2 * part) & 3);
    }
  }
}

/// Adds 16 to codes[i] where bit i of `bits` is set, i = 0..31.
inline void add_fifth_bits(uint32_t bits, uint8_t* codes) {
  for (int i = 0; i < 4; ++i) {
    const uint64_t byte = (bits >> (8 * i)) & 0xff;
    // Seven copies 7 bits apart put bit j at bit 8j without carries; the eighth bit would collide, so it goes alone.
    const uint64_t spread = ((byte & 0x7f) * 0x0002040810204081u & 0x0101010101010101u) | (byte >> 7) << 56;
    uint64_t eight;
    std::memcpy(&eight, codes + 8 * i, 8);
    eight |= spread << 4;
    std::memcpy(codes + 8 * i, &eight, 8);
  }
}

/// The inverse of load_nibbles, from the low four bits of the codes.
inline void store_nibbles(const uint8_t* codes, std::byte* p) {
  for (int j = 0; j < 16; ++j) p[j] = static_cast<std::byte>((codes[j] & 15) | (codes[j + 16] & 15) << 4);
}

/// The inverse of load_two_bits, from the low two bits of the codes.
inline void store_two_bits(const uint8_t* codes, std::byte* p) {
  for (int half = 0; half < 2; ++half, p += 32, codes += 128) {
    for (int i = 0; i < 32; ++i) {
      unsigned byte = 0;
      for (int part = 0; part < 4; ++part) byte |= static_cast<unsigned>(codes[32 * part + i] & 3) << (2 * part);
      p[i] = static_cast<std::byte>(byte);
    }
  }
}

/// Bit i is set where codes[i] has its fifth bit, i = 0..31.
inline uint32_t fifth_bits(const uint8_t* codes) {
  uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) bits |= static_cast<uint32_t>(codes[i] >> 4 & 1) << i;
  return bits;
}

/// The element of largest magnitude, sign kept; the first one on a tie.
inline float signed_peak(const float* x, int count) {
  float magnitude = 0, peak = 0;
  for (int i = 0; i < count; ++i) {
    if (magnitude < std::fabs(x[i])) {
      magnitude = std::fabs(x[i]);
      peak = x[i];
    }
  }
  return peak;
}

struct Range {
  float low, high;
};
inline Range range_of(const float* x, int count) {
  Range range{x[0], x[0]};
  for (int i = 1; i < count; ++i) {
    if (x[i] < range.low) range.low = x[i];
    if (x[i] > range.high) range.high = x[i];
  }
  return range;
}

}  // namespace nibble::quant
