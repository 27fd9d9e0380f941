// SPDX-License-Identifier: Apache-2.0
// Types of ggml for weights that were trained to be ternary or binary.
//
//   TQ1_0  256 weights in 54 bytes, w = d * (q - 1)                byte 0        48     52  54
//                                                                       | five   | four | d |    d f16
//     five: byte i < 32 holds weights 32 t + i, t = 0..4; byte 32 + i < 48 holds weights 160 + 16 t + i
//     four: byte i holds weights 240 + 4 t + i, t = 0..3
//     a byte is the fraction 0.q0 q1 q2 q3 q4 of base 3 in 256ths, rounded up: digit t = (byte * 3^t mod 256) * 3 / 256
//   TQ2_0  256 weights in 66 bytes, w = d * (q - 1)                     | two bits, as in Q2_K | d |
//   Q2_0    64 weights in 18 bytes, w = d * (q - 1)                     | d | q3 q2 q1 q0 | ... | q63 q62 q61 q60 |
//   Q1_0   128 weights in 18 bytes, w = d * (2 q - 1)                   | d | q7 ... q0 | ... | q127 ... q120 |
#include "quant/formats/formats.h"
#include "quant/formats/grids.h"

namespace nibble::quant {

namespace formats {
constinit const QuantFormat t2_g128 = weight_format("t2_g128", {.group = 128, .bits = 2, .codebook = books::t2});
constinit const QuantFormat t2_g64 = weight_format("t2_g64", {.group = 64, .bits = 2, .codebook = books::t2});
constinit const QuantFormat b1_g128 = weight_format("b1_g128", {.group = 128, .bits = 1, .codebook = books::b1});
}  // namespace formats

namespace {

constexpr int powers[] = {1, 3, 9, 27, 81};

void digits(const std::byte* p, int bytes, int count, uint8_t* codes) {
  for (int t = 0; t < count; ++t, codes += bytes) {
    for (int i = 0; i < bytes; ++i) {
      codes[i] = static_cast<uint8_t>((static_cast<unsigned>(p[i]) * static_cast<unsigned>(powers[t]) & 255) * 3 >> 8);
    }
  }
}

// Fields of a byte are `count` digits; the fifth of a group of four is 0.
void write_digits(const uint8_t* codes, int bytes, int count, std::byte* p) {
  for (int i = 0; i < bytes; ++i) {
    int sum = 0;
    for (int t = 0; t < count; ++t) sum += codes[t * bytes + i] * powers[4 - t];
    p[i] = static_cast<std::byte>((sum * 256 + 242) / 243);
  }
}

void decode_tq1(const std::byte* block, BlockCodes& out) {
  digits(block, 32, 5, out.codes);
  digits(block + 32, 16, 5, out.codes + 160);
  digits(block + 48, 4, 4, out.codes + 240);
  out.scale[0] = out.scale[1] = load_f16(block + 52);
}

void decode_tq2(const std::byte* block, BlockCodes& out) {
  load_two_bits(block, out.codes);
  out.scale[0] = out.scale[1] = load_f16(block + 64);
}

void decode_q2(const std::byte* block, BlockCodes& out) {
  out.scale[0] = load_f16(block);
  for (int i = 0; i < 64; i += 8) grids::put(out.codes + i, grids::pairs(load<uint16_t>(block + 2 + i / 4)));
}

void decode_q1(const std::byte* block, BlockCodes& out) {
  out.scale[0] = load_f16(block);
  for (int i = 0; i < 128; i += 8) grids::put(out.codes + i, grids::spread(static_cast<uint8_t>(block[2 + i / 8])));
}

// The codes of 256 weights and their scale.
float ternary_codes(const float* in, uint8_t* codes) {
  const float d = std::fabs(signed_peak(in, 256));
  const float inverse = d != 0 ? 1 / d : 0;
  for (int i = 0; i < 256; ++i) codes[i] = static_cast<uint8_t>(std::lround(in[i] * inverse) + 1);
  return d;
}

void encode_tq1(const float* in, std::byte* block) {
  uint8_t codes[256];
  store_f16(block + 52, ternary_codes(in, codes));
  write_digits(codes, 32, 5, block);
  write_digits(codes + 160, 16, 5, block + 32);
  write_digits(codes + 240, 4, 4, block + 48);
}

void encode_tq2(const float* in, std::byte* block) {
  uint8_t codes[256];
  store_f16(block + 64, ternary_codes(in, codes));
  for (int i = 0; i < 64; ++i) {
    const uint8_t* first = codes + i / 32 * 128 + i % 32;
    block[i] = static_cast<std::byte>(first[0] | first[32] << 2 | first[64] << 4 | first[96] << 6);
  }
}

}  // namespace

namespace types {
constinit const BlockType tq1_0 = {"tq1_0", 34, 256, 54, &formats::t2_g128, decode_tq1, encode_tq1};
constinit const BlockType tq2_0 = {"tq2_0", 35, 256, 66, &formats::t2_g128, decode_tq2, encode_tq2};
constinit const BlockType q2_0 = {"q2_0", 42, 64, 18, &formats::t2_g64, decode_q2, nullptr};
constinit const BlockType q1_0 = {"q1_0", 41, 128, 18, &formats::b1_g128, decode_q1, nullptr};
}  // namespace types

}  // namespace nibble::quant
