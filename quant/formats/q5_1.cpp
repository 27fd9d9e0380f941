// SPDX-License-Identifier: Apache-2.0
// Q5_1 (ggml): 32 weights in 24 bytes, w = d * q + m.
//
//   byte 0   2   4       8                                   24
//        | d | m | high4 | q16 q0 | q17 q1 | ...      | q31 q15 |     d, m f16; nibbles: the low four bits of q
//   high4: 32 bits, little-endian; bit i is the fifth bit of q_i
#include "quant/formats/formats.h"

namespace nibble::quant {

namespace formats {
constinit const QuantFormat q5z_g32 =
    weight_format("q5z_g32", {.group = 32, .bits = 5, .zero_point = ZeroPoint::minimum});
}

namespace {

void decode(const std::byte* block, BlockCodes& out) {
  out.scale[0] = load_f16(block);
  out.minimum[0] = load_f16(block + 2);
  load_nibbles(block + 8, out.codes);
  add_fifth_bits(load<uint32_t>(block + 4), out.codes);
}

void encode(const float* in, std::byte* block) {
  const Range range = range_of(in, 32);
  const float d = (range.high - range.low) / 31;
  const float inverse = d != 0 ? 1 / d : 0;
  const auto code = [&](float x) { return static_cast<uint32_t>(static_cast<int>((x - range.low) * inverse + 0.5f)); };
  uint32_t high = 0;
  for (int j = 0; j < 16; ++j) {
    const uint32_t a = code(in[j]), b = code(in[j + 16]);
    block[8 + j] = static_cast<std::byte>((a & 15) | (b & 15) << 4);
    high |= ((a >> 4) & 1) << j | ((b >> 4) & 1) << (j + 16);
  }
  store_f16(block, d);
  store_f16(block + 2, range.low);
  store(block + 4, high);
}

void write(const BlockCodes& in, std::byte* block) {
  store_f16(block, in.scale[0]);
  store_f16(block + 2, in.minimum[0]);
  store(block + 4, fifth_bits(in.codes));
  store_nibbles(in.codes, block + 8);
}

}  // namespace

namespace types {
constinit const BlockType q5_1 = {"q5_1", 7, 32, 24, &formats::q5z_g32, decode, encode, write};
}

}  // namespace nibble::quant
