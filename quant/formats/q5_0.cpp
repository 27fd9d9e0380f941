// SPDX-License-Identifier: Apache-2.0
// Q5_0 (ggml): 32 weights in 22 bytes, w = d * (q - 16).
//
//   byte 0   2       6                                   22
//        | d | high4 | q16 q0 | q17 q1 | ...      | q31 q15 |     d f16; nibbles: the low four bits of q
//   high4: 32 bits, little-endian; bit i is the fifth bit of q_i
#include <algorithm>

#include "quant/formats/formats.h"

namespace nibble::quant {

namespace formats {
constinit const QuantFormat q5s_g32 = weight_format("q5s_g32", {.group = 32, .bits = 5});
}

namespace {

void decode(const std::byte* block, BlockCodes& out) {
  out.scale[0] = load_f16(block);
  load_nibbles(block + 6, out.codes);
  add_fifth_bits(load<uint32_t>(block + 2), out.codes);
}

void encode(const float* in, std::byte* block) {
  const float d = signed_peak(in, 32) / -16;
  const float inverse = d != 0 ? 1 / d : 0;
  const auto code = [&](float x) { return static_cast<uint32_t>(std::min(31, static_cast<int>(x * inverse + 16.5f))); };
  uint32_t high = 0;
  for (int j = 0; j < 16; ++j) {
    const uint32_t a = code(in[j]), b = code(in[j + 16]);
    block[6 + j] = static_cast<std::byte>((a & 15) | (b & 15) << 4);
    high |= (a >> 4) << j | (b >> 4) << (j + 16);
  }
  store_f16(block, d);
  store(block + 2, high);
}

void write(const BlockCodes& in, std::byte* block) {
  store_f16(block, in.scale[0]);
  store(block + 2, fifth_bits(in.codes));
  store_nibbles(in.codes, block + 6);
}

}  // namespace

namespace types {
constinit const BlockType q5_0 = {"q5_0", 6, 32, 22, &formats::q5s_g32, decode, encode, write};
}

}  // namespace nibble::quant
