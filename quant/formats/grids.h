// SPDX-License-Identifier: Apache-2.0
// Tables and bit tricks of ggml's IQ types; grids.cpp says what the entries are.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace nibble::quant::grids {

extern const uint16_t iq2_xxs[256], iq2_xs[512], iq2_s[1024], iq3_xxs[256], iq3_s[512], iq1[2048];

/// Eight bytes of the eight two-bit fields of an entry.
inline uint64_t pairs(uint64_t entry) {
  entry = (entry | entry << 24) & 0x000000ff000000ff;
  entry = (entry | entry << 12) & 0x000f000f000f000f;
  return (entry | entry << 6) & 0x0303030303030303;
}

/// Four bytes of the four three-bit fields of an entry.
inline uint32_t triples(uint32_t entry) {
  entry = (entry | entry << 10) & 0x003f003f;
  return (entry | entry << 5) & 0x07070707;
}

/// Byte i is bit i of `bits`.
inline uint64_t spread(uint64_t bits) {
  bits = (bits | bits << 28) & 0x0000000f0000000f;
  bits = (bits | bits << 14) & 0x0003000300030003;
  return (bits | bits << 7) & 0x0101010101010101;
}

/// Signs of eight weights from seven bits: an even number of them is negative.
inline unsigned even_signs(unsigned seven) { return seven | static_cast<unsigned>(std::popcount(seven) & 1) << 7; }

inline void put(uint8_t* codes, uint64_t eight) { std::memcpy(codes, &eight, 8); }

}  // namespace nibble::quant::grids
