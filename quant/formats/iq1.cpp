// SPDX-License-Identifier: Apache-2.0
// IQ1_S and IQ1_M (ggml): eight weights are an entry of the grid iq1 (-1, 0, 1) plus or minus an eighth,
// w = (d * (2 s + 1)) * (v +- 1/8), s three bits wide. Packed as eighths: d / 8 times 2 s + 1 times 8 v +- 1.
//
//   IQ1_S  256 weights in 8 groups of 32 in 50 bytes     | d | index 32 | high 16 |        d f16
//     high, two bytes a group:   bit 15    14-12   11-9   8-6   5-3   2-0
//                                    minus  s      upper bits of the index of vectors 3, 2, 1, 0
//   IQ1_M  256 weights in 16 groups of 16 in 56 bytes    | index 32 | high 16 | d, s 8 |
//     high: nibble v (0 = low of byte 0): bit 3 minus, bits 2-0 upper bits of the index of vector v
//     d, s: four 16-bit numbers; bits 15-12: bits 4i+3..4i of the f16 d; bits 3j+2..3j: s of group 4i + j
#include "quant/formats/formats.h"
#include "quant/formats/grids.h"

namespace nibble::quant {

namespace formats {
constinit const QuantFormat iq1_g32x8_f32 = weight_format(
    "iq1_g32x8_f32", {.group = 32, .bits = 3, .scale = DType::f32, .sub_groups = 8, .codebook = books::iq1});
constinit const QuantFormat iq1_g16x16_f32 = weight_format(
    "iq1_g16x16_f32", {.group = 16, .bits = 3, .scale = DType::f32, .sub_groups = 16, .codebook = books::iq1});
}  // namespace formats

namespace {

void vector(unsigned index, bool minus, uint8_t* codes) {
  grids::put(codes, grids::pairs(grids::iq1[index]) | (minus ? 0x0404040404040404u : 0u));
}

void decode_s(const std::byte* block, BlockCodes& out) {
  out.scale[0] = load_f16(block) / 8;
  for (int g = 0; g < 8; ++g) {
    const unsigned high = load<uint16_t>(block + 34 + 2 * g);
    for (int v = 0; v < 4; ++v) {
      const unsigned index = static_cast<unsigned>(block[2 + 4 * g + v]) | (high >> 3 * v & 7) << 8;
      vector(index, high >> 15, out.codes + 32 * g + 8 * v);
    }
    out.sub_scale[g] = static_cast<int8_t>(2 * (high >> 12 & 7) + 1);
  }
}

void decode_m(const std::byte* block, BlockCodes& out) {
  for (int v = 0; v < 32; ++v) {
    const unsigned high = static_cast<unsigned>(block[32 + v / 2]) >> (v % 2 * 4);
    vector(static_cast<unsigned>(block[v]) | (high & 7) << 8, high & 8, out.codes + 8 * v);
  }
  unsigned d = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned scales = load<uint16_t>(block + 48 + 2 * i);
    d |= scales >> 12 << 4 * i;
    for (int j = 0; j < 4; ++j) out.sub_scale[4 * i + j] = static_cast<int8_t>(2 * (scales >> 3 * j & 7) + 1);
  }
  out.scale[0] = f16_to_f32(static_cast<uint16_t>(d)) / 8;
}

}  // namespace

namespace types {
constinit const BlockType iq1_s = {"iq1_s", 19, 256, 50, &formats::iq1_g32x8_f32, decode_s, nullptr};
constinit const BlockType iq1_m = {"iq1_m", 29, 256, 56, &formats::iq1_g16x16_f32, decode_m, nullptr};
}  // namespace types

}  // namespace nibble::quant
