// SPDX-License-Identifier: Apache-2.0
#include "jit/act_tile.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "jit/vector_math.h"

namespace nibble::jit {

namespace {

// Four dwords of a row. int16: of every four values the first and third, then the second and fourth, make a dword.
template <bool words>
__m128i load4(const std::byte* from) {
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return words ? _mm_shufflehi_epi16(_mm_shufflelo_epi16(x, 0xd8), 0xd8) : x;
}

// out[i * rows + r] = in[r][i] for `count` dwords of each row.
template <bool words>
void interleave(const std::byte* in, int64_t row_bytes, int rows, int64_t count, std::byte* out) {
  int r = 0;
  for (; r + 4 <= rows; r += 4) {
    const std::byte* from = in + r * row_bytes;
    for (int64_t i = 0; i < count; i += 4) {  // count is a multiple of 8
      __m128i x[4];
      for (int j = 0; j < 4; ++j) x[j] = load4<words>(from + j * row_bytes + i * 4);
      const __m128i a = _mm_unpacklo_epi32(x[0], x[1]), b = _mm_unpacklo_epi32(x[2], x[3]);
      const __m128i c = _mm_unpackhi_epi32(x[0], x[1]), d = _mm_unpackhi_epi32(x[2], x[3]);
      const __m128i y[4] = {_mm_unpacklo_epi64(a, b), _mm_unpackhi_epi64(a, b), _mm_unpacklo_epi64(c, d),
                            _mm_unpackhi_epi64(c, d)};
      for (int j = 0; j < 4; ++j) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + ((i + j) * rows + r) * 4), y[j]);
      }
    }
  }
  for (; r < rows; ++r) {
    for (int64_t i = 0; i < count; i += 4) {
      alignas(16) std::byte four[16];
      _mm_store_si128(reinterpret_cast<__m128i*>(four), load4<words>(in + r * row_bytes + i * 4));
      if (rows == 1) {
        std::memcpy(out + i * 4, four, 16);
      } else {
        for (int64_t j = 0; j < 4; ++j) std::memcpy(out + ((i + j) * rows + r) * 4, four + j * 4, 4);
      }
    }
  }
}

void store_dword(std::byte* to, int32_t value) { std::memcpy(to, &value, 4); }

NIBBLE_AVX2_BEGIN

// The dwords of GemmShape::start_k, -zero_point times the sums of so many values by k % 4 / 2, each `stride` bytes
// behind the one before it. `count` is a multiple of 32.
void store_starts(const std::byte* values, int64_t count, int start_k, int zero_point, std::byte* to, int64_t stride) {
  const __m256i ones = _mm256_set1_epi8(1), factor = _mm256_set1_epi16(static_cast<int16_t>(-zero_point));
  for (int64_t k = 0; k < count; k += 32) {
    const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + k));
    __m256i sums = _mm256_maddubs_epi16(ones, x);
    sums = _mm256_add_epi16(sums, _mm256_shuffle_epi32(sums, 0x4e));
    sums = _mm256_add_epi16(sums, _mm256_shuffle_epi32(sums, 0xb1));
    if (start_k == 32) sums = _mm256_add_epi16(sums, _mm256_permute2x128_si256(sums, sums, 1));
    sums = _mm256_mullo_epi16(sums, factor);
    store_dword(to, _mm256_cvtsi256_si32(sums));
    to += stride;
    if (start_k == 32) continue;
    store_dword(to, _mm256_extract_epi32(sums, 4));
    to += stride;
  }
}

NIBBLE_AVX2_END

// out[i * rows] = in[i] + add, dwords
void scatter(const std::byte* in, int64_t count, int32_t add, int rows, std::byte* out) {
  for (int64_t i = 0; i < count; ++i) {
    int32_t value;
    std::memcpy(&value, in + i * 4, 4);
    store_dword(out + i * rows * 4, value + add);
  }
}

}  // namespace

void pack_act_tile(const GemmShape& shape, int rows, const Activations& act, int64_t row, int64_t begin, int64_t end,
                   std::byte* tile) {
  const quant::ActGeometry geometry = quant::act_geometry(act.needs, act.m, act.k);
  for (int64_t k_begin = begin; k_begin < end; k_begin += quant::max_group, tile += shape.act_bytes) {
    const int64_t a = k_begin / quant::max_group;
    const int64_t k_count = std::min<int64_t>(quant::max_group, geometry.k_padded - k_begin);
    const int64_t value_bytes = act.needs.bits / 8, row_bytes = geometry.k_padded * value_bytes;
    const std::byte* values = act.data + row * row_bytes + k_begin * value_bytes;
    if (shape.row_values) {
      for (int r = 0; r < rows; ++r) {
        std::byte* to = tile + r * quant::max_group;
        std::memcpy(to, values + r * row_bytes, static_cast<size_t>(k_count));
        std::memset(to + k_count, 0, static_cast<size_t>(quant::max_group - k_count));
      }
    } else if (shape.words) {
      interleave<true>(values, row_bytes, rows, k_count / 2, tile);
    } else {
      interleave<false>(values, row_bytes, rows, k_count / 4, tile);
    }
    const int64_t group_begin = a * shape.groups_per_record;
    const int64_t groups = std::min<int64_t>(shape.groups_per_record, geometry.sums_per_row - group_begin);
    for (int r = 0; r < rows && (shape.float_sums || shape.int_sums); ++r) {
      const std::byte* sums = act.data + geometry.sums_offset + ((row + r) * geometry.sums_per_row + group_begin) * 4;
      scatter(sums, groups, 0, rows, tile + (shape.float_sums ? shape.act_float_sums : shape.act_int_sums) + r * 4);
      if (shape.carries_biased)
        scatter(sums, groups, std::bit_cast<int32_t>(integer_bias), rows, tile + shape.act_biased_sums + r * 4);
    }
    for (int r = 0; r < rows && shape.start_k; ++r) {
      store_starts(values + r * row_bytes, k_count, shape.start_k, shape.zero_point, tile + shape.act_starts + r * 4,
                   rows * 4);
    }
    const int64_t scale_begin = a * shape.scales_per_record;
    const int64_t scales = std::min<int64_t>(shape.scales_per_record, geometry.scales_per_row - scale_begin);
    for (int r = 0; r < rows; ++r) {
      const int64_t at = (row + r) * geometry.scales_per_row + scale_begin;
      scatter(act.data + geometry.scales_offset + at * 4, scales, 0, rows, tile + shape.act_scales + r * 4);
    }
  }
}

}  // namespace nibble::jit
