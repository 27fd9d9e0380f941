// SPDX-License-Identifier: Apache-2.0
// Q4_K and Q5_K (ggml): 256 weights in 8 groups of 32, w = (d * s[g]) * q - (dmin * t[g]), s and t six bits wide.
//
//   Q4_K  byte 0   2      4        16              144
//              | d | dmin | s, t   | nibbles 128     |     d, dmin f16
//   Q5_K  byte 0   2      4        16        48    176
//              | d | dmin | s, t   | high 32 | nibbles 128 |
//   s, t     bytes 0-3:  s[g+4] bits 5-4 | s[g] bits 5-0        g = 0..3, byte g
//            bytes 4-7:  t[g+4] bits 5-4 | t[g] bits 5-0
//            bytes 8-11: t[g+4] bits 3-0 | s[g+4] bits 3-0
//   nibbles  byte 32p + i: high nibble weight 64p + 32 + i, low nibble weight 64p + i,  p = 0..3
//   high     byte i, bit g: the fifth bit of weight 32g + i
//
// Packed with m = -dmin as super minimum: negating an f16 is exact, and so are d * s and dmin * t in f32.
#include "quant/formats/formats.h"

namespace nibble::quant {

namespace formats {
constinit const QuantFormat q4z_g32x8 =
    weight_format("q4z_g32x8", {.group = 32, .bits = 4, .zero_point = ZeroPoint::minimum, .sub_groups = 8});
constinit const QuantFormat q5z_g32x8 =
    weight_format("q5z_g32x8", {.group = 32, .bits = 5, .zero_point = ZeroPoint::minimum, .sub_groups = 8});
}  // namespace formats

namespace {

void decode_scales(const std::byte* block, BlockCodes& out) {
  out.scale[0] = load_f16(block);
  out.minimum[0] = -load_f16(block + 2);
  const auto low = load<uint32_t>(block + 4), mid = load<uint32_t>(block + 8), high = load<uint32_t>(block + 12);
  const auto put = [](int8_t* to, uint32_t four) { std::memcpy(to, &four, 4); };
  put(out.sub_scale, low & 0x3f3f3f3f);
  put(out.sub_minimum, mid & 0x3f3f3f3f);
  put(out.sub_scale + 4, (high & 0x0f0f0f0f) | (low >> 2 & 0x30303030));
  put(out.sub_minimum + 4, (high >> 4 & 0x0f0f0f0f) | (mid >> 2 & 0x30303030));
}

void decode_nibbles(const std::byte* p, uint8_t* codes) {
  for (int pair = 0; pair < 4; ++pair) {
    for (int i = 0; i < 32; ++i) {
      const auto byte = static_cast<uint8_t>(p[32 * pair + i]);
      codes[64 * pair + i] = byte & 0x0f;
      codes[64 * pair + 32 + i] = byte >> 4;
    }
  }
}

void decode_q4(const std::byte* block, BlockCodes& out) {
  decode_scales(block, out);
  decode_nibbles(block + 16, out.codes);
}

void decode_q5(const std::byte* block, BlockCodes& out) {
  decode_scales(block, out);
  decode_nibbles(block + 48, out.codes);
  uint8_t high[32];
  std::memcpy(high, block + 16, 32);
  for (int g = 0; g < 8; ++g) {
    for (int i = 0; i < 32; ++i) out.codes[32 * g + i] |= static_cast<uint8_t>((high[i] >> g & 1) << 4);
  }
}

void write_scales(const BlockCodes& in, std::byte* block) {
  const auto get = [](const int8_t* from) {
    uint32_t four;
    std::memcpy(&four, from, 4);
    return four;
  };
  const uint32_t s0 = get(in.sub_scale), s4 = get(in.sub_scale + 4), t0 = get(in.sub_minimum),
                 t4 = get(in.sub_minimum + 4);
  store_f16(block, in.scale[0]);
  store_f16(block + 2, -in.minimum[0]);
  store(block + 4, s0 | (s4 & 0x30303030) << 2);
  store(block + 8, t0 | (t4 & 0x30303030) << 2);
  store(block + 12, (s4 & 0x0f0f0f0f) | (t4 & 0x0f0f0f0f) << 4);
}

void write_nibbles(const uint8_t* codes, std::byte* p) {
  for (int pair = 0; pair < 4; ++pair, codes += 64) {
    for (int i = 0; i < 32; ++i) p[32 * pair + i] = static_cast<std::byte>((codes[i] & 15) | (codes[32 + i] & 15) << 4);
  }
}

void write_q4(const BlockCodes& in, std::byte* block) {
  write_scales(in, block);
  write_nibbles(in.codes, block + 16);
}

void write_q5(const BlockCodes& in, std::byte* block) {
  write_scales(in, block);
  write_nibbles(in.codes, block + 48);
  for (int i = 0; i < 32; ++i) {
    unsigned high = 0;
    for (int g = 0; g < 8; ++g) high |= static_cast<unsigned>(in.codes[32 * g + i] >> 4 & 1) << g;
    block[16 + i] = static_cast<std::byte>(high);
  }
}

}  // namespace

namespace types {
constinit const BlockType q4_k = {"q4_k", 12, 256, 144, &formats::q4z_g32x8, decode_q4, nullptr, write_q4, 0, 63};
constinit const BlockType q5_k = {"q5_k", 13, 256, 176, &formats::q5z_g32x8, decode_q5, nullptr, write_q5, 0, 63};
}  // namespace types

}  // namespace nibble::quant
