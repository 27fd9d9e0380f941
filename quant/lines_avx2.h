// SPDX-License-Identifier: Apache-2.0
// Lines of a panel by AVX2: dwords (four weights of a byte each, or eight nibbles) of 16 columns are transposed, so
// that a register holds the same dword of eight columns, which is half a line. Private to quant/.
#pragma once

#include <immintrin.h>

#include <cstddef>

#define NIBBLE_AVX2 __attribute__((target("avx2"), always_inline)) inline

namespace nibble::quant::lines {

/// Half 0 holds columns 0 to 7, half 1 columns 8 to 15.
struct Line {
  __m256i half[2];
};

NIBBLE_AVX2 __m256i two_rows(const std::byte* a, const std::byte* b) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a))),
                                 _mm_loadu_si128(reinterpret_cast<const __m128i*>(b)), 1);
}

/// Half h of lines 0 to 3 from 16 bytes of columns 8h to 8h + 7; `a` holds those of columns 8h and 8h + 4, and so on.
NIBBLE_AVX2 void transpose_half(__m256i a, __m256i b, __m256i c, __m256i d, int h, Line (&out)[4]) {
  const __m256i ab0 = _mm256_unpacklo_epi32(a, b), ab1 = _mm256_unpackhi_epi32(a, b);
  const __m256i cd0 = _mm256_unpacklo_epi32(c, d), cd1 = _mm256_unpackhi_epi32(c, d);
  out[0].half[h] = _mm256_unpacklo_epi64(ab0, cd0);
  out[1].half[h] = _mm256_unpackhi_epi64(ab0, cd0);
  out[2].half[h] = _mm256_unpacklo_epi64(ab1, cd1);
  out[3].half[h] = _mm256_unpackhi_epi64(ab1, cd1);
}

/// Dwords 0 to 3 of the 16 bytes that stand at `p` in every column.
NIBBLE_AVX2 void transpose(const std::byte* p, size_t stride, Line (&out)[4]) {
  for (int h = 0; h < 2; ++h, p += 8 * stride) {
    const __m256i a = two_rows(p, p + 4 * stride), b = two_rows(p + stride, p + 5 * stride);
    const __m256i c = two_rows(p + 2 * stride, p + 6 * stride), d = two_rows(p + 3 * stride, p + 7 * stride);
    transpose_half(a, b, c, d, h, out);
  }
}

NIBBLE_AVX2 void store(std::byte* line, int h, __m256i v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(line + 32 * h), v);
}

/// A line of a plane `width` bits wide from bits shift .. shift + width - 1 of the bytes of 8 / width dwords.
template <int width>
NIBBLE_AVX2 void write_bits(const Line* w, int shift, std::byte* line) {
  const __m256i mask = _mm256_set1_epi8((1 << width) - 1);
  const __m128i count = _mm_cvtsi32_si128(shift);
  for (int h = 0; h < 2; ++h) {
    __m256i sum = _mm256_setzero_si256();
    for (int s = 8 / width - 1; s >= 0; --s)  // what leaves a byte at the top has been masked off
      sum =
          _mm256_or_si256(_mm256_slli_epi32(sum, width), _mm256_and_si256(_mm256_srl_epi32(w[s].half[h], count), mask));
    store(line, h, sum);
  }
}

}  // namespace nibble::quant::lines
