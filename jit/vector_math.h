// SPDX-License-Identifier: Apache-2.0
// Functions of eight floats. Include it last, then open NIBBLE_AVX2_BEGIN: everything between it and NIBBLE_AVX2_END is
// compiled for AVX2, FMA and F16C.
#pragma once

#include <immintrin.h>

#include <cstdint>

#define NIBBLE_AVX2_BEGIN _Pragma("GCC push_options") _Pragma("GCC target(\"avx2,fma,f16c\")")
#define NIBBLE_AVX2_END _Pragma("GCC pop_options")

namespace nibble::jit::vec {

NIBBLE_AVX2_BEGIN

/// Lanes below `count` (0 to 8) all ones, for maskload and maskstore.
inline __m256i first_lanes(int64_t count) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
}

/// The first `count` of eight floats, the others 0; count >= 8 takes all. Stores under a mask are slow on some CPUs, so
/// whole vectors go without.
inline __m256 load(const float* p, int64_t count) {
  return count >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, first_lanes(count));
}
inline void store(float* p, int64_t count, __m256 x) {
  if (count >= 8) _mm256_storeu_ps(p, x);
  else _mm256_maskstore_ps(p, first_lanes(count), x);
}

// What jit/functions.inc asks for.
using V = __m256;
using Where = __m256;
inline V like(V, float c) { return _mm256_set1_ps(c); }
inline V add(V a, V b) { return _mm256_add_ps(a, b); }
inline V sub(V a, V b) { return _mm256_sub_ps(a, b); }
inline V mul(V a, V b) { return _mm256_mul_ps(a, b); }
inline V div(V a, V b) { return _mm256_div_ps(a, b); }
inline V min(V a, V b) { return _mm256_min_ps(a, b); }
inline V max(V a, V b) { return _mm256_max_ps(a, b); }
inline V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
inline V fms(V a, V b, V c) { return _mm256_fmsub_ps(a, b, c); }
inline V round(V x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline V size(V x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
inline V opposite(V x) { return _mm256_xor_ps(x, _mm256_set1_ps(-0.0f)); }
inline V signed_like(V a, V x) { return _mm256_or_ps(a, _mm256_and_ps(_mm256_set1_ps(-0.0f), x)); }
inline V power_of_two(V n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
inline Where less(V a, V b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
inline V keep(Where w, V x) { return _mm256_and_ps(w, x); }
inline V choose(Where w, V x, V y) { return _mm256_blendv_ps(y, x, w); }

#include "jit/functions.inc"

/// Lanes reduced 8 -> 4 -> 2 -> 1.
inline float sum(__m256 x) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float max(__m256 x) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

/// Eight elements of a panel or row as floats.
inline __m256 from_f16(const void* p) { return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(p))); }
inline __m256 from_bf16(const void* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

NIBBLE_AVX2_END

}  // namespace nibble::jit::vec
