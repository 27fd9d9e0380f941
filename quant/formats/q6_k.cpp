// SPDX-License-Identifier: Apache-2.0
// Q6_K (ggml): 256 weights in 16 groups of 16 in 210 bytes, w = (d * s[g]) * (q - 32), s int8.
//
//   byte 0        128       192     208  210
//        | low 128 | high 64 | s[16] | d |     d f16
//   weight 128h + 32p + i  (h = 0..1, p = 0..3, i = 0..31)
//     low four bits: low byte 64h + 32 (p % 2) + i, nibble p / 2 (0 = low)
//     high two bits: high byte 32h + i, bits 2p+1..2p
#include "quant/formats/formats.h"

namespace nibble::quant {

namespace formats {
constinit const QuantFormat q6s_g16x16 = weight_format("q6s_g16x16", {.group = 16, .bits = 6, .sub_groups = 16});
}

namespace {

void decode(const std::byte* block, BlockCodes& out) {
  for (int h = 0; h < 2; ++h) {
    const std::byte* low = block + 64 * h;
    const std::byte* high = block + 128 + 32 * h;
    uint8_t* codes = out.codes + 128 * h;
    for (int i = 0; i < 32; ++i) {
      const auto a = static_cast<uint8_t>(low[i]), b = static_cast<uint8_t>(low[i + 32]);
      const auto top = static_cast<uint8_t>(high[i]);
      codes[i] = static_cast<uint8_t>((a & 15) | (top & 3) << 4);
      codes[i + 32] = static_cast<uint8_t>((b & 15) | (top >> 2 & 3) << 4);
      codes[i + 64] = static_cast<uint8_t>(a >> 4 | (top >> 4 & 3) << 4);
      codes[i + 96] = static_cast<uint8_t>(b >> 4 | (top >> 6) << 4);
    }
  }
  std::memcpy(out.sub_scale, block + 192, 16);
  out.scale[0] = load_f16(block + 208);
}

void write(const BlockCodes& in, std::byte* block) {
  for (int h = 0; h < 2; ++h) {
    const uint8_t* codes = in.codes + 128 * h;
    for (int i = 0; i < 32; ++i) {
      const uint8_t* c = codes + i;
      block[64 * h + i] = static_cast<std::byte>((c[0] & 15) | (c[64] & 15) << 4);
      block[64 * h + 32 + i] = static_cast<std::byte>((c[32] & 15) | (c[96] & 15) << 4);
      block[128 + 32 * h + i] = static_cast<std::byte>(c[0] >> 4 | c[32] >> 4 << 2 | c[64] >> 4 << 4 | c[96] >> 4 << 6);
    }
  }
  std::memcpy(block + 192, in.sub_scale, 16);
  store_f16(block + 208, in.scale[0]);
}

}  // namespace

namespace types {
constinit const BlockType q6_k = {"q6_k", 14, 256, 210, &formats::q6s_g16x16, decode, nullptr, write, -128, 127};
}

}  // namespace nibble::quant
