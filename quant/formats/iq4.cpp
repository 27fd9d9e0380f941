// SPDX-License-Identifier: Apache-2.0
// IQ4_NL and IQ4_XS (ggml): codes are places in a table of 16 values, w = d * book[q].
//
//   IQ4_NL   32 weights in 18 bytes    | d | nibbles 16 |                 d f16; nibbles as in Q4_0
//   IQ4_XS  256 weights in 8 groups of 32 in 136 bytes, w = (d * (s[g] - 32)) * book[q], s six bits wide
//            byte 0   2    4    8              136
//                 | d | sh | sl | nibbles 128 |
//            s[g]: low four bits from byte g / 2 of sl, nibble g % 2 (0 = low); high two from bits 2g+1..2g of sh
//            nibbles: 16 bytes per group, as in Q4_0
#include "quant/formats/formats.h"

namespace nibble::quant {

namespace formats {
constinit const QuantFormat iq4_g32 = weight_format("iq4_g32", {.group = 32, .bits = 4, .codebook = books::iq4});
constinit const QuantFormat iq4_g32x8 =
    weight_format("iq4_g32x8", {.group = 32, .bits = 4, .sub_groups = 8, .codebook = books::iq4});
}  // namespace formats

namespace {

void decode_nl(const std::byte* block, BlockCodes& out) {
  out.scale[0] = load_f16(block);
  load_nibbles(block + 2, out.codes);
}

void decode_xs(const std::byte* block, BlockCodes& out) {
  out.scale[0] = load_f16(block);
  const unsigned high = load<uint16_t>(block + 2), low = load<uint32_t>(block + 4);
  for (int g = 0; g < 8; ++g) {
    out.sub_scale[g] = static_cast<int8_t>(static_cast<int>((low >> 4 * g & 15) | (high >> 2 * g & 3) << 4) - 32);
    load_nibbles(block + 8 + 16 * g, out.codes + 32 * g);
  }
}

void write_nl(const BlockCodes& in, std::byte* block) {
  store_f16(block, in.scale[0]);
  store_nibbles(in.codes, block + 2);
}

void write_xs(const BlockCodes& in, std::byte* block) {
  unsigned high = 0, low = 0;
  for (int g = 0; g < 8; ++g) {
    const auto multiplier = static_cast<unsigned>(in.sub_scale[g] + 32);
    low |= (multiplier & 15) << 4 * g;
    high |= (multiplier >> 4) << 2 * g;
    store_nibbles(in.codes + 32 * g, block + 8 + 16 * g);
  }
  store_f16(block, in.scale[0]);
  store(block + 2, static_cast<uint16_t>(high));
  store(block + 4, low);
}

}  // namespace

namespace types {
constinit const BlockType iq4_nl = {"iq4_nl", 20, 32, 18, &formats::iq4_g32, decode_nl, nullptr, write_nl};
constinit const BlockType iq4_xs = {"iq4_xs", 23, 256, 136, &formats::iq4_g32x8, decode_xs, nullptr, write_xs, -32, 31};
}  // namespace types

}  // namespace nibble::quant
