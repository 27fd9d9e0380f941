// SPDX-License-Identifier: Apache-2.0
#include "jit/act_tile.h"

#include <emmintrin.h>

#include <algorithm>
#include <cstring>

namespace nibble::jit {

namespace {

// out[i * rows + r] = in[r][i] for `count` dwords of each row.
void interleave(const std::byte* in, int64_t row_bytes, int rows, int64_t count, std::byte* out) {
  if (rows == 1) {
    std::memcpy(out, in, static_cast<size_t>(count) * 4);
    return;
  }
  int r = 0;
  for (; r + 4 <= rows; r += 4) {
    const std::byte* from = in + r * row_bytes;
    for (int64_t i = 0; i < count; i += 4) {  // count is a multiple of 8
      __m128i x[4];
      for (int j = 0; j < 4; ++j) x[j] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + j * row_bytes + i * 4));
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
    for (int64_t i = 0; i < count; ++i) std::memcpy(out + (i * rows + r) * 4, in + r * row_bytes + i * 4, 4);
  }
}

// The integer sum of a group's activations, from the form it is stored in (quant/activation.h).
int32_t int_sum(const GemmShape& shape, const quant::ActNeeds& needs, int32_t stored) {
  if (needs.offset == 0) {
    float sum;
    std::memcpy(&sum, &stored, sizeof(sum));
    return static_cast<int32_t>(sum) * shape.int_sum_factor;
  }
  return stored;
}

}  // namespace

void pack_act_tile(const GemmShape& shape, int rows, const Activations& act, int64_t row, int64_t begin, int64_t end,
                   std::byte* tile) {
  const quant::ActGeometry geometry = quant::act_geometry(act.needs, act.m, act.k);
  for (int64_t k_begin = begin; k_begin < end; k_begin += quant::max_group, tile += shape.act_bytes) {
    const int64_t a = k_begin / quant::max_group;
    const int64_t k_count = std::min<int64_t>(quant::max_group, geometry.k_padded - k_begin);
    interleave(act.data + row * geometry.k_padded + k_begin, geometry.k_padded, rows, k_count / 4, tile);
    const int64_t group_begin = a * shape.groups_per_record;
    const int64_t groups = std::min<int64_t>(shape.groups_per_record, geometry.sums_per_row - group_begin);
    for (int64_t g = 0; g < groups; ++g) {
      for (int r = 0; r < rows; ++r) {
        const int64_t at = (row + r) * geometry.sums_per_row + group_begin + g;
        int32_t stored;
        std::memcpy(&stored, act.data + geometry.sums_offset + static_cast<size_t>(at) * 4, 4);
        const auto to = static_cast<size_t>((g * rows + r) * 4);
        if (shape.float_sums) std::memcpy(tile + shape.act_float_sums + to, &stored, 4);
        const int32_t sum = int_sum(shape, act.needs, stored);
        if (shape.int_sums) std::memcpy(tile + shape.act_int_sums + to, &sum, 4);
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
