// SPDX-License-Identifier: Apache-2.0
// Functions of eight floats. Include it last, then open NIBBLE_AVX2_BEGIN: everything between it and NIBBLE_AVX2_END is
// compiled for AVX2, FMA and F16C. The polynomials are minimax fits (relative error) found by Lawson's iteration.
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

/// 2^x within 1 ulp; exactly 1 at 0; 0 below -126.5; infinity above 127.5; NaN stays NaN.
inline __m256 exp2(__m256 x) {
  const __m256 bounded = _mm256_max_ps(_mm256_set1_ps(-127.0f), _mm256_min_ps(_mm256_set1_ps(128.0f), x));
  const __m256 n = _mm256_round_ps(bounded, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256 f = _mm256_sub_ps(bounded, n);
  __m256 p = _mm256_set1_ps(0.000153533605f);
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0.0013398875f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0.00961843692f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0.0555033237f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0.240226477f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0.693147182f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.0f));
  // 2^n with the exponent field alone: -127 gives 0, 128 gives infinity.
  const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(p, _mm256_castsi256_ps(power));
}

/// e^x within 2 ulp.
inline __m256 exp(__m256 x) {
  const __m256 log2e = _mm256_set1_ps(1.44269502f);
  // x log2(e) in two parts: the product's rounding error and the constant's own go to the linear term.
  const __m256 high = _mm256_mul_ps(x, log2e);
  __m256 low = _mm256_fmsub_ps(x, log2e, high);
  low = _mm256_fmadd_ps(x, _mm256_set1_ps(1.92596299e-8f), low);
  const __m256 y = exp2(high);
  const __m256 finite = _mm256_cmp_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), high), _mm256_set1_ps(126.0f), _CMP_LT_OQ);
  return _mm256_fmadd_ps(y, _mm256_and_ps(finite, _mm256_mul_ps(low, _mm256_set1_ps(0.693147182f))), y);
}

inline __m256 sigmoid(__m256 x) {
  const __m256 one = _mm256_set1_ps(1.0f);
  return _mm256_div_ps(one, _mm256_add_ps(one, exp(_mm256_xor_ps(x, _mm256_set1_ps(-0.0f)))));
}
inline __m256 silu(__m256 x) {
  const __m256 one = _mm256_set1_ps(1.0f);
  return _mm256_div_ps(x, _mm256_add_ps(one, exp(_mm256_xor_ps(x, _mm256_set1_ps(-0.0f)))));
}

/// Within about 2 ulp.
inline __m256 tanh(__m256 x) {
  const __m256 sign = _mm256_set1_ps(-0.0f), one = _mm256_set1_ps(1.0f);
  const __m256 size = _mm256_andnot_ps(sign, x), square = _mm256_mul_ps(x, x);
  __m256 p = _mm256_set1_ps(-0.00566008501f);
  p = _mm256_fmadd_ps(p, square, _mm256_set1_ps(0.0205910914f));
  p = _mm256_fmadd_ps(p, square, _mm256_set1_ps(-0.0537211075f));
  p = _mm256_fmadd_ps(p, square, _mm256_set1_ps(0.133311287f));
  p = _mm256_fmadd_ps(p, square, _mm256_set1_ps(-0.333332598f));
  const __m256 small = _mm256_fmadd_ps(_mm256_mul_ps(p, square), x, x);
  const __m256 power = exp2(_mm256_mul_ps(size, _mm256_set1_ps(2.88539004f)));
  const __m256 large = _mm256_sub_ps(one, _mm256_div_ps(_mm256_set1_ps(2.0f), _mm256_add_ps(power, one)));
  const __m256 is_small = _mm256_cmp_ps(size, _mm256_set1_ps(0.625f), _CMP_LT_OQ);
  return _mm256_blendv_ps(_mm256_or_ps(large, _mm256_and_ps(sign, x)), small, is_small);
}

/// Error below 2e-7.
inline __m256 erf(__m256 x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  const __m256 size = _mm256_andnot_ps(sign, x), square = _mm256_mul_ps(x, x);
  __m256 p = _mm256_set1_ps(7.85396696e-05f);
  p = _mm256_fmadd_ps(p, square, _mm256_set1_ps(-0.000801022805f));
  p = _mm256_fmadd_ps(p, square, _mm256_set1_ps(0.00518833194f));
  p = _mm256_fmadd_ps(p, square, _mm256_set1_ps(-0.0268538147f));
  p = _mm256_fmadd_ps(p, square, _mm256_set1_ps(0.112835854f));
  p = _mm256_fmadd_ps(p, square, _mm256_set1_ps(-0.37612626f));
  p = _mm256_fmadd_ps(p, square, _mm256_set1_ps(1.12837911f));
  // From 3.95 on erf rounds to 1; the other fit is of -log2(1 - erf).
  const __m256 t = _mm256_min_ps(_mm256_set1_ps(3.95f), size);
  __m256 q = _mm256_set1_ps(3.12874581e-05f);
  q = _mm256_fmadd_ps(q, t, _mm256_set1_ps(-0.000636713114f));
  q = _mm256_fmadd_ps(q, t, _mm256_set1_ps(0.00606589718f));
  q = _mm256_fmadd_ps(q, t, _mm256_set1_ps(-0.0363678187f));
  q = _mm256_fmadd_ps(q, t, _mm256_set1_ps(0.156414926f));
  q = _mm256_fmadd_ps(q, t, _mm256_set1_ps(0.913543224f));
  q = _mm256_fmadd_ps(q, t, _mm256_set1_ps(1.62963724f));
  q = _mm256_fmadd_ps(q, t, _mm256_set1_ps(-0.000271282857f));
  const __m256 large = _mm256_sub_ps(_mm256_set1_ps(1.0f), exp2(_mm256_xor_ps(sign, q)));
  const __m256 is_small = _mm256_cmp_ps(size, _mm256_set1_ps(1.0f), _CMP_LT_OQ);
  return _mm256_blendv_ps(_mm256_or_ps(large, _mm256_and_ps(sign, x)), _mm256_mul_ps(p, x), is_small);
}
inline __m256 gelu(__m256 x) {
  const __m256 half = _mm256_mul_ps(_mm256_set1_ps(0.5f), x);
  return _mm256_fmadd_ps(half, erf(_mm256_mul_ps(x, _mm256_set1_ps(0.707106769f))), half);
}
inline __m256 gelu_tanh(__m256 x) {
  const __m256 half = _mm256_mul_ps(_mm256_set1_ps(0.5f), x);
  const __m256 cube = _mm256_mul_ps(_mm256_mul_ps(x, x), x);
  const __m256 inner = _mm256_mul_ps(_mm256_set1_ps(0.797884583f), _mm256_fmadd_ps(_mm256_set1_ps(0.044715f), cube, x));
  return _mm256_fmadd_ps(half, tanh(inner), half);
}
inline __m256 relu(__m256 x) { return _mm256_max_ps(_mm256_setzero_ps(), x); }

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
