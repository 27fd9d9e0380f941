// SPDX-License-Identifier: Apache-2.0
// Q8_0 (ggml): 32 weights in 34 bytes, w = d * q.
//
//   byte 0   2                              34
//        | d | q0 | q1 | ...           | q31 |     d f16, q int8
//
// Packed as unsigned codes q + 128: the unpackers know unsigned codes only.
#include <algorithm>

#include "quant/formats/formats.h"

namespace nibble::quant {

namespace formats {
constinit const QuantFormat q8s_g32 = weight_format("q8s_g32", {.group = 32, .bits = 8});
}

namespace {

void decode(const std::byte* block, BlockCodes& out) {
  out.scale[0] = load_f16(block);
  for (int j = 0; j < 32; ++j) out.codes[j] = static_cast<uint8_t>(block[2 + j]) ^ 0x80;
}

void encode(const float* in, std::byte* block) {
  const float d = std::fabs(signed_peak(in, 32)) / 127;
  const float inverse = d != 0 ? 1 / d : 0;
  store_f16(block, d);
  for (int j = 0; j < 32; ++j) block[2 + j] = static_cast<std::byte>(static_cast<int8_t>(std::round(in[j] * inverse)));
}

void write(const BlockCodes& in, std::byte* block) {
  store_f16(block, in.scale[0]);
  for (int j = 0; j < 32; ++j) block[2 + j] = static_cast<std::byte>(in.codes[j] ^ 0x80);
}

}  // namespace

namespace types {
constinit const BlockType q8_0 = {"q8_0", 8, 32, 34, &formats::q8s_g32, decode, encode, write};
}

}  // namespace nibble::quant
