// SPDX-License-Identifier: Apache-2.0
// IQ2_XXS, IQ2_XS and IQ2_S (ggml): eight weights are a grid entry of magnitudes 8, 25, 43 and eight signs,
// w = (d * (2 s + 1) / 8) * v, s four bits wide. Packed with d / 8 as super scale, in f32 because f16 may not hold it.
//
//   IQ2_XXS  8 groups of 32 in 66 bytes     | d | eight times: index 4, word 4 |                    d f16
//     word: bits 31-28 s, bits 7v+6..7v the signs of vector v; the eighth makes an even number of them negative
//   IQ2_XS  16 groups of 16 in 74 bytes     | d | vectors 64 | s 8 |
//     vector: 16 bits, 15-9 signs as above, 8-0 index;      s: nibble g (0 = low of byte 0)
//   IQ2_S   16 groups of 16 in 82 bytes     | d | index 32 | signs 32 | high 8 | s 8 |
//     signs: a byte a vector;      high: bits 2v+1..2v of the 64 are the upper bits of the index of vector v
#include "quant/formats/formats.h"
#include "quant/formats/grids.h"

namespace nibble::quant {

namespace formats {
constinit const QuantFormat iq2_g32x8_f32 = weight_format(
    "iq2_g32x8_f32", {.group = 32, .bits = 3, .scale = DType::f32, .sub_groups = 8, .codebook = books::iq2});
constinit const QuantFormat iq2_g16x16_f32 = weight_format(
    "iq2_g16x16_f32", {.group = 16, .bits = 3, .scale = DType::f32, .sub_groups = 16, .codebook = books::iq2});
}  // namespace formats

namespace {

void vector(unsigned entry, unsigned signs, uint8_t* codes) {
  grids::put(codes, grids::pairs(entry) | grids::spread(signs) << 2);
}

void decode_multipliers(const std::byte* nibbles, BlockCodes& out) {
  for (int g = 0; g < 16; ++g) {
    out.sub_scale[g] = static_cast<int8_t>(2 * (static_cast<unsigned>(nibbles[g / 2]) >> (g % 2 * 4) & 15) + 1);
  }
}

void decode_xxs(const std::byte* block, BlockCodes& out) {
  out.scale[0] = load_f16(block) / 8;
  for (int g = 0; g < 8; ++g) {
    const std::byte* index = block + 2 + 8 * g;
    const auto word = load<uint32_t>(index + 4);
    for (int v = 0; v < 4; ++v) {
      const unsigned signs = grids::even_signs(word >> 7 * v & 127);
      vector(grids::iq2_xxs[static_cast<unsigned>(index[v])], signs, out.codes + 32 * g + 8 * v);
    }
    out.sub_scale[g] = static_cast<int8_t>(2 * (word >> 28) + 1);
  }
}

void decode_xs(const std::byte* block, BlockCodes& out) {
  out.scale[0] = load_f16(block) / 8;
  for (int v = 0; v < 32; ++v) {
    const unsigned both = load<uint16_t>(block + 2 + 2 * v);
    vector(grids::iq2_xs[both & 511], grids::even_signs(both >> 9), out.codes + 8 * v);
  }
  decode_multipliers(block + 66, out);
}

void decode_s(const std::byte* block, BlockCodes& out) {
  out.scale[0] = load_f16(block) / 8;
  for (int v = 0; v < 32; ++v) {
    const unsigned high = static_cast<unsigned>(block[66 + v / 4]) >> (v % 4 * 2) & 3;
    const unsigned index = static_cast<unsigned>(block[2 + v]) | high << 8;
    vector(grids::iq2_s[index], static_cast<unsigned>(block[34 + v]), out.codes + 8 * v);
  }
  decode_multipliers(block + 74, out);
}

}  // namespace

namespace types {
constinit const BlockType iq2_xxs = {"iq2_xxs", 16, 256, 66, &formats::iq2_g32x8_f32, decode_xxs, nullptr};
constinit const BlockType iq2_xs = {"iq2_xs", 17, 256, 74, &formats::iq2_g16x16_f32, decode_xs, nullptr};
constinit const BlockType iq2_s = {"iq2_s", 22, 256, 82, &formats::iq2_g16x16_f32, decode_s, nullptr};
}  // namespace types

}  // namespace nibble::quant
