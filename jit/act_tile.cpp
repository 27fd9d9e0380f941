// SPDX-License-Identifier: Apache-2.0
#include "jit/act_tile.h"

#include <emmintrin.h>

#include <algorithm>
#include <bit>
#include <cstring>

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

// The dword of GemmShape::start_k: -zero_point times the sums of 16 values at each of `blocks` places, by k % 4 / 2.
int32_t start_of(const std::byte* values, int blocks, int zero_point) {
  __m128i sums = _mm_setzero_si128();
  for (int i = 0; i < blocks; ++i) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(values + i * 16));
    sums = _mm_add_epi16(sums, _mm_add_epi16(_mm_srai_epi16(_mm_slli_epi16(x, 8), 8), _mm_srai_epi16(x, 8)));
  }
  sums = _mm_add_epi16(sums, _mm_srli_si128(sums, 8));
  sums = _mm_add_epi16(sums, _mm_srli_si128(sums, 4));
  return _mm_cvtsi128_si32(_mm_mullo_epi16(sums, _mm_set1_epi16(static_cast<int16_t>(-zero_point))));
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
    for (int64_t g = 0; g < groups; ++g) {
      for (int r = 0; r < rows; ++r) {
        const int64_t at = (row + r) * geometry.sums_per_row + group_begin + g;
        const std::byte* sum = act.data + geometry.sums_offset + static_cast<size_t>(at) * 4;
        const int to = (shape.float_sums ? shape.act_float_sums : shape.act_int_sums) + (static_cast<int>(g) * rows + r) * 4;
        if (shape.float_sums || shape.int_sums) std::memcpy(tile + to, sum, 4);
        if (!shape.carries_biased) continue;
        int32_t biased;
        std::memcpy(&biased, sum, 4);
        biased += std::bit_cast<int32_t>(integer_bias);
        std::memcpy(tile + shape.act_biased_sums + (static_cast<int>(g) * rows + r) * 4, &biased, 4);
      }
    }
    for (int64_t at = 0; shape.start_k && at < k_count; at += shape.start_k) {
      for (int r = 0; r < rows; ++r) {
        const int32_t start = start_of(values + r * row_bytes + at, shape.start_k / 16, shape.zero_point);
        std::memcpy(tile + shape.act_starts + (at / shape.start_k * rows + r) * 4, &start, 4);
      }
    }
    const int64_t scale_begin = a * shape.scales_per_record;
    const int64_t scales = std::min<int64_t>(shape.scales_per_record, geometry.scales_per_row - scale_begin);
    for (int64_t s = 0; s < scales; ++s) {
      for (int r = 0; r < rows; ++r) {
        const int64_t at = (row + r) * geometry.scales_per_row + scale_begin + s;
        std::memcpy(tile + shape.act_scales + (s * rows + r) * 4,
                    act.data + geometry.scales_offset + static_cast<size_t>(at) * 4, 4);
      }
    }
  }
}

}  // namespace nibble::jit
