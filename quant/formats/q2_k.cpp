// SPDX-License-Identifier: Apache-2.0
// Q2_K (ggml): 256 weights in 16 groups of 16 in 84 bytes, w = (d * s[g]) * q - dmin * t[g].
//
//   byte 0       16       80  82     84
//        | t, s  | two bits | d | dmin |     d, dmin f16; byte g: t[g] in the high nibble, s[g] in the low one
//   weight 128h + 32p + i  (h = 0..1, p = 0..3, i = 0..31): byte 32h + i of the two bits, bits 2p+1..2p
//
// Packed with m = -dmin as super minimum: negating an f16 is exact, and so are d * s and dmin * t in f32.
#include "quant/formats/formats.h"

namespace nibble::quant {

namespace formats {
constinit const QuantFormat q2z_g16x16 =
    weight_format("q2z_g16x16", {.group = 16, .bits = 2, .zero_point = ZeroPoint::minimum, .sub_groups = 16});
}

namespace {

void decode(const std::byte* block, BlockCodes& out) {
  for (int g = 0; g < 16; ++g) {
    const auto both = static_cast<uint8_t>(block[g]);
    out.sub_scale[g] = static_cast<int8_t>(both & 15);
    out.sub_minimum[g] = static_cast<int8_t>(both >> 4);
  }
  load_two_bits(block + 16, out.codes);
  out.scale[0] = load_f16(block + 80);
  out.minimum[0] = -load_f16(block + 82);
}

void write(const BlockCodes& in, std::byte* block) {
  for (int g = 0; g < 16; ++g) block[g] = static_cast<std::byte>(in.sub_scale[g] | in.sub_minimum[g] << 4);
  store_two_bits(in.codes, block + 16);
  store_f16(block + 80, in.scale[0]);
  store_f16(block + 82, -in.minimum[0]);
}

}  // namespace

namespace types {
constinit const BlockType q2_k = {"q2_k", 10, 256, 84, &formats::q2z_g16x16, decode, nullptr, write, 0, 15};
}

}  // namespace nibble::quant
