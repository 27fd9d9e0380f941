// SPDX-License-Identifier: Apache-2.0
// Pages in other forms. A page of keys turned into values, in squares that fill a register's rows: 4 x 4 of 32 bits, 8
// x 8 of 16. In i8 two elements of two slots make 32 bits, whose inner bytes change places.
#include <algorithm>

#include "jit/attention.h"

#include "jit/vector_math.h"

namespace nibble::jit {

NIBBLE_AVX2_BEGIN

namespace {

template <int n>
void interleave(__m128i a, __m128i b, __m128i& low, __m128i& high) {
  if constexpr (n == 4) low = _mm_unpacklo_epi32(a, b), high = _mm_unpackhi_epi32(a, b);
  else low = _mm_unpacklo_epi16(a, b), high = _mm_unpackhi_epi16(a, b);
}

/// Square of n elements of 16 / n bytes, the first `rows` of its rows from memory, the others zeros.
template <int n, bool pairs>
void turn_square(const std::byte* in, int64_t in_stride, int64_t rows, std::byte* out, int64_t out_stride) {
  __m128i x[n];
  for (int i = 0; i < n; ++i)
    x[i] = i < rows ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i * in_stride)) : _mm_setzero_si128();
  // Each round interleaves the two halves of all n * n elements; log2(n) rounds exchange row and column.
  for (int round = 1; round < n; round *= 2) {
    __m128i y[n];
    for (int i = 0; i < n / 2; ++i) interleave<n>(x[i], x[i + n / 2], y[2 * i], y[2 * i + 1]);
    for (int i = 0; i < n; ++i) x[i] = y[i];
  }
  const __m128i inner = _mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15);
  for (int i = 0; i < n; ++i) {
    if constexpr (pairs) x[i] = _mm_shuffle_epi8(x[i], inner);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i * out_stride), x[i]);
  }
}

/// (count, slots) units to (slots, padded).
template <int n, bool pairs = false>
void turn(const std::byte* page, int64_t count, int64_t padded, int64_t slots, std::byte* values) {
  constexpr int64_t size = 16 / n;
  for (int64_t c = 0; c < padded; c += n)
    for (int64_t slot = 0; slot < slots; slot += n)
      turn_square<n, pairs>(page + (c * slots + slot) * size, slots * size, std::clamp<int64_t>(count - c, 0, n),
                            values + (slot * padded + c) * size, padded * size);
}

/// Half i of 16 columns.
template <DType type>
__m256i expanded(const std::byte* in, int i) {
  if constexpr (type == DType::f32) return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in) + i);
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in) + i);
  if constexpr (type == DType::f16) return _mm256_castps_si256(_mm256_cvtph_ps(half));
  if constexpr (type == DType::bf16) return _mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16);
  return _mm256_cvtepi8_epi16(half);
}

template <DType type>
void expand(const std::byte* in, int64_t stride, int64_t rows, int64_t ahead, std::byte* out) {
  for (int64_t r = 0; r < rows; ++r) {
    _mm_prefetch(reinterpret_cast<const char*>(in + ahead), _MM_HINT_T1);
    _mm256_store_si256(reinterpret_cast<__m256i*>(out), expanded<type>(in, 0));
    _mm256_store_si256(reinterpret_cast<__m256i*>(out + 32), expanded<type>(in, 1));
    in += stride;
    out += 64;
  }
}

}  // namespace

void attention_expand(DType type, const std::byte* in, int64_t stride, int64_t rows, int64_t ahead, std::byte* out) {
  if (type == DType::f16) expand<DType::f16>(in, stride, rows, ahead, out);
  else if (type == DType::bf16) expand<DType::bf16>(in, stride, rows, ahead, out);
  else if (type == DType::i8) expand<DType::i8>(in, stride, rows, ahead, out);
  else expand<DType::f32>(in, stride, rows, ahead, out);
}

void attention_turn(DType type, const std::byte* page, int64_t count, int64_t padded, std::byte* values) {
  if (type == DType::f32) turn<4>(page, count, padded, page_positions, values);
  else if (type == DType::i8) turn<4, true>(page, (count + 1) / 2, padded / 2, page_positions / 2, values);
  else turn<8>(page, count, padded, page_positions, values);
}

NIBBLE_AVX2_END

}  // namespace nibble::jit
