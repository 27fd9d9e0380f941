// SPDX-License-Identifier: Apache-2.0
// Sixteen columns at once, by the transposition of quant/lines_avx2.h. Scales move as bits.
#include "quant/pack_avx2.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "quant/formats/formats.h"
#include "quant/lines_avx2.h"
#include "tensor/cpu.h"

namespace nibble::quant {

namespace {

using namespace lines;

/// A line of the 4-bit plane from the low nibbles of two dwords, and one from the high ones.
NIBBLE_AVX2 void write_nibbles(const Line& a, const Line& b, std::byte* low, std::byte* high) {
  const __m256i mask = _mm256_set1_epi8(0x0f);
  for (int h = 0; h < 2; ++h) {
    const __m256i x = a.half[h], y = b.half[h];
    store(low, h, _mm256_or_si256(_mm256_and_si256(x, mask), _mm256_slli_epi32(_mm256_and_si256(y, mask), 4)));
    store(high, h, _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi32(x, 4), mask), _mm256_andnot_si256(mask, y)));
  }
}

/// The 4-bit plane of 32 weights from 16 bytes a column: weight j in the low nibble of byte j, j + 16 in the high one.
NIBBLE_AVX2 void write_split_nibbles(const std::byte* p, size_t stride, std::byte* codes) {
  Line w[4];
  transpose(p, stride, w);
  write_nibbles(w[0], w[1], codes, codes + 128);
  write_nibbles(w[2], w[3], codes + 64, codes + 192);
}

/// The 4-bit planes of two blocks of 32 weights from 32 bytes a column: one in the low nibbles, one in the high ones.
NIBBLE_AVX2 void write_paired_nibbles(const std::byte* p, size_t stride, std::byte* low, std::byte* high) {
  for (int part = 0; part < 2; ++part, p += 16, low += 128, high += 128) {
    Line w[4];
    transpose(p, stride, w);
    write_nibbles(w[0], w[1], low, high);
    write_nibbles(w[2], w[3], low + 64, high + 64);
  }
}

/// The 16-bit values at `p` in every column; `flip` is exclusive-ored to them.
NIBBLE_AVX2 void write_halves(const std::byte* p, size_t stride, std::byte* out, uint16_t flip = 0) {
  uint16_t values[panel_columns];
  for (int c = 0; c < panel_columns; ++c, p += stride) values[c] = load<uint16_t>(p) ^ flip;
  std::memcpy(out, values, sizeof values);
}

/// The 1-bit plane of 32 weights from a word a column whose bit i is weight i's: bit 4s + j goes to bit 8j + s. The
/// five bits of a place turn by two, one at a time: each step is an inverse perfect shuffle.
NIBBLE_AVX2 void write_fifth_bits(const std::byte* p, size_t stride, std::byte* out) {
  uint32_t words[panel_columns];
  for (int c = 0; c < panel_columns; ++c, p += stride) words[c] = load<uint32_t>(p);
  for (uint32_t& word : words) {
    uint32_t x = word;
    for (int step = 0; step < 2; ++step) {
      uint32_t t;
      t = (x ^ (x >> 1)) & 0x22222222u, x ^= t ^ (t << 1);
      t = (x ^ (x >> 2)) & 0x0c0c0c0cu, x ^= t ^ (t << 2);
      t = (x ^ (x >> 4)) & 0x00f000f0u, x ^= t ^ (t << 4);
      t = (x ^ (x >> 8)) & 0x0000ff00u, x ^= t ^ (t << 8);
    }
    word = x;
  }
  std::memcpy(out, words, sizeof words);
}

/// Byte i of the 16 that stand at `rows` in every column, as 16 bytes at place.at(i).
template <class Place>
NIBBLE_AVX2 void transpose_bytes(const std::byte* rows, size_t stride, Place place) {
  __m128i v[16], w[16];
  for (int c = 0; c < 16; ++c)
    v[c] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows + static_cast<size_t>(c) * stride));
  for (int step = 0; step < 4; ++step) {  // each interleaves column c with column c + 8
    for (int c = 0; c < 8; ++c) {
      w[2 * c] = _mm_unpacklo_epi8(v[c], v[c + 8]);
      w[2 * c + 1] = _mm_unpackhi_epi8(v[c], v[c + 8]);
    }
    std::copy(w, w + 16, v);
  }
  for (int i = 0; i < 16; ++i) _mm_storeu_si128(reinterpret_cast<__m128i*>(place.at(i)), v[i]);
}

/// q4_0 and iq4_nl, which differ only in what a code stands for.
struct Q4_0 {
  static constexpr size_t bytes = 18, codes = 256, scales = 32;
  NIBBLE_AVX2 static void pack(const std::byte* p, size_t stride, std::byte* code, std::byte* scale) {
    write_split_nibbles(p + 2, stride, code);
    write_halves(p, stride, scale);
  }
};

struct Q4_1 {
  static constexpr size_t bytes = 20, codes = 256, scales = 64;
  NIBBLE_AVX2 static void pack(const std::byte* p, size_t stride, std::byte* code, std::byte* scale) {
    write_split_nibbles(p + 4, stride, code);
    write_halves(p, stride, scale);
    write_halves(p + 2, stride, scale + 32);
  }
};

struct Q5_0 {
  static constexpr size_t bytes = 22, codes = 320, scales = 32;
  NIBBLE_AVX2 static void pack(const std::byte* p, size_t stride, std::byte* code, std::byte* scale) {
    write_split_nibbles(p + 6, stride, code);
    write_fifth_bits(p + 2, stride, code + 256);
    write_halves(p, stride, scale);
  }
};

struct Q5_1 {
  static constexpr size_t bytes = 24, codes = 320, scales = 64;
  NIBBLE_AVX2 static void pack(const std::byte* p, size_t stride, std::byte* code, std::byte* scale) {
    write_split_nibbles(p + 8, stride, code);
    write_fifth_bits(p + 4, stride, code + 256);
    write_halves(p, stride, scale);
    write_halves(p + 2, stride, scale + 32);
  }
};

struct Q8_0 {
  static constexpr size_t bytes = 34, codes = 512, scales = 32;
  NIBBLE_AVX2 static void pack(const std::byte* p, size_t stride, std::byte* code, std::byte* scale) {
    const __m256i sign = _mm256_set1_epi8(static_cast<char>(0x80));
    for (int part = 0; part < 2; ++part) {
      Line w[4];
      transpose(p + 2 + 16 * part, stride, w);
      for (int l = 0; l < 4; ++l)
        for (int h = 0; h < 2; ++h) store(code + 256 * part + 64 * l, h, _mm256_xor_si256(w[l].half[h], sign));
    }
    write_halves(p, stride, scale);
  }
};

/// Super scale, super minimum, then per group 16 multipliers and 16 of the minimum.
struct KScales {
  std::byte* out;
  std::byte* at(int i) const { return out + (i < 8 ? 32 * i : 32 * (i - 8) + 16); }
};
NIBBLE_AVX2 void write_k_scales(const std::byte* p, size_t stride, std::byte* scale) {
  write_halves(p, stride, scale);
  write_halves(p + 2, stride, scale + 32, 0x8000);
  uint32_t words[panel_columns][4];
  for (int c = 0; c < panel_columns; ++c, p += stride) {
    const auto low = load<uint32_t>(p + 4), mid = load<uint32_t>(p + 8), high = load<uint32_t>(p + 12);
    words[c][0] = low & 0x3f3f3f3f;
    words[c][1] = (high & 0x0f0f0f0f) | (low >> 2 & 0x30303030);
    words[c][2] = mid & 0x3f3f3f3f;
    words[c][3] = (high >> 4 & 0x0f0f0f0f) | (mid >> 2 & 0x30303030);
  }
  transpose_bytes(reinterpret_cast<const std::byte*>(words), sizeof words[0], KScales{scale + 64});
}

struct Q4K {
  static constexpr size_t bytes = 144, codes = 8 * 256, scales = 64 + 256;
  NIBBLE_AVX2 static void pack(const std::byte* p, size_t stride, std::byte* code, std::byte* scale) {
    write_k_scales(p, stride, scale);
    for (int pair = 0; pair < 4; ++pair, code += 512)
      write_paired_nibbles(p + 16 + 32 * pair, stride, code, code + 256);
  }
};

struct Q5K {
  static constexpr size_t bytes = 176, codes = 8 * 320, scales = 64 + 256;
  NIBBLE_AVX2 static void pack(const std::byte* p, size_t stride, std::byte* code, std::byte* scale) {
    write_k_scales(p, stride, scale);
    Line high[8];
    transpose(p + 16, stride, reinterpret_cast<Line(&)[4]>(high[0]));
    transpose(p + 32, stride, reinterpret_cast<Line(&)[4]>(high[4]));
    for (int pair = 0; pair < 4; ++pair, code += 640) {
      write_paired_nibbles(p + 48 + 32 * pair, stride, code, code + 320);
      write_bits<1>(high, 2 * pair, code + 256);
      write_bits<1>(high, 2 * pair + 1, code + 576);
    }
  }
};

struct InOrder {
  std::byte* out;
  std::byte* at(int i) const { return out + 16 * i; }
};
struct Q6K {
  static constexpr size_t bytes = 210, codes = 8 * 384, scales = 32 + 256;
  NIBBLE_AVX2 static void pack(const std::byte* p, size_t stride, std::byte* code, std::byte* scale) {
    write_halves(p + 208, stride, scale);
    transpose_bytes(p + 192, stride, InOrder{scale + 32});
    for (int half = 0; half < 2; ++half, code += 4 * 384) {
      Line high[8];
      transpose(p + 128 + 32 * half, stride, reinterpret_cast<Line(&)[4]>(high[0]));
      transpose(p + 144 + 32 * half, stride, reinterpret_cast<Line(&)[4]>(high[4]));
      for (int part = 0; part < 2; ++part)
        write_paired_nibbles(p + 64 * half + 32 * part, stride, code + 384 * part, code + 384 * (part + 2));
      for (int part = 0; part < 4; ++part) {
        write_bits<2>(high, 2 * part, code + 384 * part + 256);
        write_bits<2>(high + 4, 2 * part, code + 384 * part + 320);
      }
    }
  }
};

/// Our own: low nibbles are the first half of the weights.
struct Q4G64 {
  static constexpr size_t bytes = 34, codes = 2 * 256, scales = 32;
  NIBBLE_AVX2 static void pack(const std::byte* p, size_t stride, std::byte* code, std::byte* scale) {
    write_paired_nibbles(p + 2, stride, code, code + 256);
    write_halves(p, stride, scale);
  }
};

struct Q4G128 {
  static constexpr size_t bytes = 66, codes = 4 * 256, scales = 32;
  NIBBLE_AVX2 static void pack(const std::byte* p, size_t stride, std::byte* code, std::byte* scale) {
    for (int part = 0; part < 2; ++part)
      write_paired_nibbles(p + 2 + 32 * part, stride, code + 256 * part, code + 256 * (part + 2));
    write_halves(p, stride, scale);
  }
};

struct Q6G64 {
  static constexpr size_t bytes = 50, codes = 2 * 384, scales = 32;
  NIBBLE_AVX2 static void pack(const std::byte* p, size_t stride, std::byte* code, std::byte* scale) {
    write_paired_nibbles(p + 2, stride, code, code + 384);
    Line high[4];
    transpose(p + 34, stride, high);
    for (int quarter = 0; quarter < 4; ++quarter)
      write_bits<2>(high, 2 * quarter, code + 256 + 384 * (quarter / 2) + 64 * (quarter % 2));
    write_halves(p, stride, scale);
  }
};

template <class Block>
__attribute__((target("avx2"))) void pack_panel(const std::byte* rows, size_t row_bytes, int64_t blocks,
                                                std::byte* codes, std::byte* scales) {
  for (; blocks > 0; --blocks, rows += Block::bytes, codes += Block::codes, scales += Block::scales)
    Block::pack(rows, row_bytes, codes, scales);
}

struct Packer {
  std::string_view type;
  PackPanel pack;
};
constexpr Packer packers[] = {
    {"q4_0", pack_panel<Q4_0>},    {"iq4_nl", pack_panel<Q4_0>},    {"q4_1", pack_panel<Q4_1>},
    {"q5_0", pack_panel<Q5_0>},    {"q5_1", pack_panel<Q5_1>},      {"q8_0", pack_panel<Q8_0>},
    {"q4_k", pack_panel<Q4K>},     {"q5_k", pack_panel<Q5K>},       {"q6_k", pack_panel<Q6K>},
    {"q4_g64", pack_panel<Q4G64>}, {"q4_g128", pack_panel<Q4G128>}, {"q6_g64", pack_panel<Q6G64>},
};

}  // namespace

PackPanel find_fast_packer(const BlockType& type) {
  if (!supported(Isa::avx2)) return nullptr;
  for (const Packer& packer : packers)
    if (packer.type == type.name) return packer.pack;
  return nullptr;
}

}  // namespace nibble::quant
