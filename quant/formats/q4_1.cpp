// SPDX-License-Identifier: Apache-2.0
// Q4_1 (ggml): 32 weights in 20 bytes, w = d * q + m.
//
//   byte 0   2   4                                   20
//        | d | m | q16 q0 | q17 q1 | ...      | q31 q15 |     d, m f16; each byte: high nibble, low nibble
#include <algorithm>

#include "quant/formats/formats.h"

namespace nibble::quant {

namespace formats {
constinit const QuantFormat q4z_g32 =
    weight_format("q4z_g32", {.group = 32, .bits = 4, .zero_point = ZeroPoint::minimum});
}

namespace {

void decode(const std::byte* block, BlockCodes& out) {
  out.scale[0] = load_f16(block);
  out.minimum[0] = load_f16(block + 2);
  load_nibbles(block + 4, out.codes);
}

void encode(const float* in, std::byte* block) {
  const Range range = range_of(in, 32);
  const float d = (range.high - range.low) / 15;
  const float inverse = d != 0 ? 1 / d : 0;
  const auto code = [&](float x) { return std::min(15, static_cast<int>((x - range.low) * inverse + 0.5f)); };
  store_f16(block, d);
  store_f16(block + 2, range.low);
  for (int j = 0; j < 16; ++j) block[4 + j] = static_cast<std::byte>(code(in[j]) | code(in[j + 16]) << 4);
}

void write(const BlockCodes& in, std::byte* block) {
  store_f16(block, in.scale[0]);
  store_f16(block + 2, in.minimum[0]);
  store_nibbles(in.codes, block + 4);
}

}  // namespace

namespace types {
constinit const BlockType q4_1 = {"q4_1", 3, 32, 20, &formats::q4z_g32, decode, encode, write};
}

}  // namespace nibble::quant
