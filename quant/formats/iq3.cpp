// SPDX-License-Identifier: Apache-2.0
// IQ3_XXS and IQ3_S (ggml): 256 weights in 8 groups of 32; four weights are a grid entry of magnitudes, eight share a
// byte of signs; s four bits wide.
//
//   IQ3_XXS  98 bytes, magnitudes 4, 12 .. 52, 62, w = (d * (2 s + 1) / 4) * v    | d | index 64 | words 32 |    d f16
//     word of a group: bits 31-28 s, bits 7v+6..7v the signs of its weights 8v..8v+7; the eighth makes an even number
//     of them negative. Packed with d / 4 as super scale, in f32 because f16 may not hold it
//   IQ3_S   110 bytes, magnitudes 1, 3 .. 15, w = (d * (2 s + 1)) * v      | d | index 64 | high 8 | signs 32 | s 4 |
//     high: bit i of the 64 is bit 8 of index i;      s: nibble g (0 = low of byte 0)
#include "quant/formats/formats.h"
#include "quant/formats/grids.h"

namespace nibble::quant {

namespace formats {
constinit const QuantFormat iq3_g32x8_f32 = weight_format(
    "iq3_g32x8_f32", {.group = 32, .bits = 4, .scale = DType::f32, .sub_groups = 8, .codebook = books::iq3});
constinit const QuantFormat odd_g32x8 =
    weight_format("odd_g32x8", {.group = 32, .bits = 4, .sub_groups = 8, .codebook = books::odd});
}  // namespace formats

namespace {

void eight(unsigned first, unsigned second, unsigned signs, uint8_t* codes) {
  const uint64_t magnitudes = grids::triples(first) | uint64_t{grids::triples(second)} << 32;
  grids::put(codes, magnitudes | grids::spread(signs) << 3);
}

void decode_xxs(const std::byte* block, BlockCodes& out) {
  out.scale[0] = load_f16(block) / 4;
  for (int g = 0; g < 8; ++g) {
    const auto word = load<uint32_t>(block + 66 + 4 * g);
    for (int v = 0; v < 4; ++v) {
      const std::byte* index = block + 2 + 8 * g + 2 * v;
      eight(grids::iq3_xxs[static_cast<unsigned>(index[0])], grids::iq3_xxs[static_cast<unsigned>(index[1])],
            grids::even_signs(word >> 7 * v & 127), out.codes + 32 * g + 8 * v);
    }
    out.sub_scale[g] = static_cast<int8_t>(2 * (word >> 28) + 1);
  }
}

void decode_s(const std::byte* block, BlockCodes& out) {
  out.scale[0] = load_f16(block);
  for (int v = 0; v < 32; ++v) {
    const unsigned high = static_cast<unsigned>(block[66 + v / 4]) >> (v % 4 * 2);
    const unsigned first = static_cast<unsigned>(block[2 + 2 * v]) | (high & 1) << 8;
    const unsigned second = static_cast<unsigned>(block[3 + 2 * v]) | (high >> 1 & 1) << 8;
    eight(grids::iq3_s[first], grids::iq3_s[second], static_cast<unsigned>(block[74 + v]), out.codes + 8 * v);
  }
  for (int g = 0; g < 8; ++g) {
    out.sub_scale[g] = static_cast<int8_t>(2 * (static_cast<unsigned>(block[106 + g / 2]) >> (g % 2 * 4) & 15) + 1);
  }
}

}  // namespace

namespace types {
constinit const BlockType iq3_xxs = {"iq3_xxs", 18, 256, 98, &formats::iq3_g32x8_f32, decode_xxs, nullptr};
constinit const BlockType iq3_s = {"iq3_s", 21, 256, 110, &formats::odd_g32x8, decode_s, nullptr};
}  // namespace types

}  // namespace nibble::quant
