// SPDX-License-Identifier: Apache-2.0
// 4-bit floats E2M1. Panels hold them doubled, as whole numbers, and their scales halved, which is exact.
//
//   MXFP4 (OCP microscaling formats 1.0)   32 weights in 17 bytes, w = 2^(e - 127) * q
//     | e | nibbles 16 |                    e one byte; nibbles as in Q4_0. Half of 2^-127 is a subnormal that bf16 has
//   NVFP4 (as ggml stores it)   64 weights in 4 groups of 16 in 36 bytes, w = s[g] * q
//     | s0 s1 s2 s3 | nibbles 32 |          s unsigned E4M3, 0x7f is 0; group g: byte 8g + i holds weights 16g + i (low
//                                           nibble) and 16g + 8 + i
#include "quant/formats/formats.h"

namespace nibble::quant {

namespace formats {
constinit const QuantFormat fp4_g32_bf16 =
    weight_format("fp4_g32_bf16", {.group = 32, .bits = 4, .scale = DType::bf16, .codebook = books::fp4});
constinit const QuantFormat fp4_g16 = weight_format("fp4_g16", {.group = 16, .bits = 4, .codebook = books::fp4});
}  // namespace formats

namespace {

float half_power(int e) { return std::ldexp(1.0f, e - 128); }

float half_e4m3(unsigned code) {
  if ((code & 0xff) == 0x7f) return 0;
  const int exponent = static_cast<int>(code >> 3 & 15), fraction = static_cast<int>(code & 7);
  return exponent == 0 ? std::ldexp(static_cast<float>(fraction), -10)
                       : std::ldexp(static_cast<float>(8 + fraction), exponent - 11);
}

void decode_mx(const std::byte* block, BlockCodes& out) {
  out.scale[0] = half_power(static_cast<int>(block[0]));
  load_nibbles(block + 1, out.codes);
}

void decode_nv(const std::byte* block, BlockCodes& out) {
  for (int g = 0; g < 4; ++g) {
    out.scale[g] = half_e4m3(static_cast<unsigned>(block[g]));
    for (int i = 0; i < 8; ++i) {
      const auto byte = static_cast<uint8_t>(block[4 + 8 * g + i]);
      out.codes[16 * g + i] = byte & 15;
      out.codes[16 * g + 8 + i] = byte >> 4;
    }
  }
}

// The first of the nearest values.
int nearest(float x, float d) {
  const Codebook& book = panel_codebook(books::fp4);
  int best = 0;
  for (int i = 1; i < 16; ++i) {
    if (std::fabs(static_cast<float>(book.values[i]) * d - x) <
        std::fabs(static_cast<float>(book.values[best]) * d - x))
      best = i;
  }
  return best;
}

void encode_mx(const float* in, std::byte* block) {
  const float peak = std::fabs(signed_peak(in, 32));
  const int e = peak > 0 ? static_cast<uint8_t>(static_cast<int>(std::floor(std::log2(peak))) - 2 + 127) : 0;
  block[0] = static_cast<std::byte>(e);
  const float d = half_power(e);
  for (int j = 0; j < 16; ++j) block[1 + j] = static_cast<std::byte>(nearest(in[j], d) | nearest(in[j + 16], d) << 4);
}

}  // namespace

namespace types {
constinit const BlockType mxfp4 = {"mxfp4", 39, 32, 17, &formats::fp4_g32_bf16, decode_mx, encode_mx};
constinit const BlockType nvfp4 = {"nvfp4", 40, 64, 36, &formats::fp4_g16, decode_nv, nullptr};
}  // namespace types

}  // namespace nibble::quant
