// SPDX-License-Identifier: Apache-2.0
// Q4_0 (ggml): 32 weights in 18 bytes, w = d * (q - 8).
//
//   byte 0   2                                   18
//        | d | q16 q0 | q17 q1 | ...      | q31 q15 |     d f16; each byte: high nibble, low nibble
#include <algorithm>

#include "quant/formats/formats.h"

namespace nibble::quant {

namespace formats {
constinit const QuantFormat q4s_g32 = weight_format("q4s_g32", {.group = 32, .bits = 4});
}

namespace {

void decode(const std::byte* block, BlockCodes& out) {
  out.scale[0] = load_f16(block);
  load_nibbles(block + 2, out.codes);
}

void encode(const float* in, std::byte* block) {
  const float d = signed_peak(in, 32) / -8;
  const float inverse = d != 0 ? 1 / d : 0;
  const auto code = [&](float x) { return std::min(15, static_cast<int>(x * inverse + 8.5f)); };
  store_f16(block, d);
  for (int j = 0; j < 16; ++j) block[2 + j] = static_cast<std::byte>(code(in[j]) | code(in[j + 16]) << 4);
}

void write(const BlockCodes& in, std::byte* block) {
  store_f16(block, in.scale[0]);
  store_nibbles(in.codes, block + 2);
}

}  // namespace

namespace types {
constinit const BlockType q4_0 = {"q4_0", 2, 32, 18, &formats::q4s_g32, decode, encode, write};
}

}  // namespace nibble::quant
