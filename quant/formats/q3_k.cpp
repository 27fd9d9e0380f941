// SPDX-License-Identifier: Apache-2.0
// Q3_K (ggml): 256 weights in 16 groups of 16 in 110 bytes, w = (d * (s[g] - 32)) * (q - 4), s six bits wide.
//
//   byte 0       32         96   108 110
//        | third | two bits | s  | d |     d f16
//   weight 128h + 32p + i  (h = 0..1, p = 0..3, i = 0..31)
//     low two bits: byte 32h + i of the two bits, bits 2p+1..2p;    third bit: byte i, bit 4h + p
//   s[g] low four bits: byte g % 8, nibble g / 8 (0 = low);    high two bits: byte 8 + g % 4, bits 2(g/4)+1..2(g/4)
#include "quant/formats/formats.h"

namespace nibble::quant {

namespace formats {
constinit const QuantFormat q3s_g16x16 = weight_format("q3s_g16x16", {.group = 16, .bits = 3, .sub_groups = 16});
}

namespace {

void decode(const std::byte* block, BlockCodes& out) {
  load_two_bits(block + 32, out.codes);
  uint8_t third[32], s[12];
  std::memcpy(third, block, sizeof third);
  std::memcpy(s, block + 96, sizeof s);
  for (int part = 0; part < 8; ++part) {
    for (int i = 0; i < 32; ++i) out.codes[32 * part + i] |= static_cast<uint8_t>((third[i] >> part & 1) << 2);
  }
  for (int g = 0; g < 16; ++g) {
    const int low = s[g % 8] >> (g / 8 * 4) & 15, high = s[8 + g % 4] >> (g / 4 * 2) & 3;
    out.sub_scale[g] = static_cast<int8_t>((low | high << 4) - 32);
  }
  out.scale[0] = load_f16(block + 108);
}

void write(const BlockCodes& in, std::byte* block) {
  uint8_t third[32] = {}, s[12] = {};
  for (int part = 0; part < 8; ++part) {
    for (int i = 0; i < 32; ++i) third[i] |= static_cast<uint8_t>((in.codes[32 * part + i] >> 2 & 1) << part);
  }
  for (int g = 0; g < 16; ++g) {
    const int multiplier = in.sub_scale[g] + 32;
    s[g % 8] |= static_cast<uint8_t>((multiplier & 15) << (g / 8 * 4));
    s[8 + g % 4] |= static_cast<uint8_t>((multiplier >> 4) << (g / 4 * 2));
  }
  std::memcpy(block, third, sizeof third);
  store_two_bits(in.codes, block + 32);
  std::memcpy(block + 96, s, sizeof s);
  store_f16(block + 108, in.scale[0]);
}

}  // namespace

namespace types {
constinit const BlockType q3_k = {"q3_k", 11, 256, 110, &formats::q3s_g16x16, decode, nullptr, write, -32, 31};
}

}  // namespace nibble::quant
