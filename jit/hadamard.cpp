// SPDX-License-Identifier: Apache-2.0
#include "jit/hadamard.h"

#include "jit/vector_math.h"

namespace nibble::jit {

NIBBLE_AVX2_BEGIN

namespace {

/// (a, b) -> (a + b, a - b) for lanes `reach` apart; `swapped` has them exchanged, `minus` the sign bits of the second
/// ones.
__m256 butterfly(__m256 x, __m256 swapped, __m256 minus) { return _mm256_add_ps(swapped, _mm256_xor_ps(x, minus)); }

__m256 within(__m256 x) {
  constexpr float m = -0.0f;
  x = butterfly(x, _mm256_permute_ps(x, 0xb1), _mm256_setr_ps(0, m, 0, m, 0, m, 0, m));
  x = butterfly(x, _mm256_permute_ps(x, 0x4e), _mm256_setr_ps(0, 0, m, m, 0, 0, m, m));
  return butterfly(x, _mm256_permute2f128_ps(x, x, 1), _mm256_setr_ps(0, 0, 0, 0, m, m, m, m));
}

void small_block(float* x, int64_t block) {
  for (int64_t reach = 1; reach < block; reach *= 2) {
    for (int64_t i = 0; i < block; ++i) {
      if ((i & reach) != 0) continue;
      const float a = x[i], b = x[i + reach];
      x[i] = a + b;
      x[i + reach] = a - b;
    }
  }
}

void large_block(float* x, int64_t block) {
  for (int64_t i = 0; i < block; i += 8) _mm256_storeu_ps(x + i, within(_mm256_loadu_ps(x + i)));
  for (int64_t reach = 8; reach < block; reach *= 2) {
    for (int64_t begin = 0; begin < block; begin += 2 * reach) {
      for (int64_t i = begin; i < begin + reach; i += 8) {
        const __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + reach);
        _mm256_storeu_ps(x + i, _mm256_add_ps(a, b));
        _mm256_storeu_ps(x + i + reach, _mm256_sub_ps(a, b));
      }
    }
  }
}

}  // namespace

void hadamard(float* x, int64_t count) {
  const int64_t block = hadamard_block(count);
  for (int64_t i = 0; i < count; i += block) {
    if (block < 8) small_block(x + i, block);
    else large_block(x + i, block);
  }
}

NIBBLE_AVX2_END

}  // namespace nibble::jit
