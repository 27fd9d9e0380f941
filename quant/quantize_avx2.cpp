// SPDX-License-Identifier: Apache-2.0
// Sixteen rows at once, group by group: their elements become floats in L1 while the ends of each group are found,
// scales of eight groups are one vector, and codes go to the panel by the transposition of quant/lines_avx2.h.
#include "quant/quantize_avx2.h"

#include <immintrin.h>

#include <algorithm>
#include <limits>

#include "quant/group_scale.h"
#include "quant/lines_avx2.h"
#include "quant/panels.h"
#include "tensor/cpu.h"

#define NIBBLE_FMA __attribute__((target("avx2,fma,f16c")))
#define NIBBLE_FMA_INLINE __attribute__((target("avx2,fma,f16c"), always_inline)) inline

namespace nibble::quant {

/// Of one group of every column.
struct Ends {
  alignas(32) float low[panel_columns], high[panel_columns];
};

/// Scales of one group of every column as stored, and what codes are found by.
struct GroupLanes {
  alignas(32) float scale[panel_columns], minimum[panel_columns];
  alignas(32) float divisor[panel_columns], inverse[panel_columns];
  int16_t zero[panel_columns];  ///< added to a rounded quotient to make it a code
};

namespace {

using namespace lines;
using Lanes = float __attribute__((vector_size(32)));

constexpr int lanes = 8;

template <DType type>
NIBBLE_FMA_INLINE __m256 load_floats(const std::byte* p) {
  if constexpr (type == DType::f32) return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  if constexpr (type == DType::f16) return _mm256_cvtph_ps(halves);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

/// Of equal ones (zeros of either sign) the first, as a loop over the group would have it.
template <bool least>
NIBBLE_FMA_INLINE __m256 farther(__m256 next, __m256 first) {
  return least ? _mm256_min_ps(next, first) : _mm256_max_ps(next, first);
}

/// Of each lane and its right neighbour; in each half those of a, then those of b.
template <bool least>
NIBBLE_FMA_INLINE __m256 join(__m256 a, __m256 b) {
  return farther<least>(_mm256_shuffle_ps(a, b, 0xdd), _mm256_shuffle_ps(a, b, 0x88));
}

/// The least or largest lane of each of eight vectors.
template <bool least>
NIBBLE_FMA_INLINE void reduce(const __m256* v, float* out) {
  const __m256 a = join<least>(join<least>(v[0], v[1]), join<least>(v[2], v[3]));
  const __m256 b = join<least>(join<least>(v[4], v[5]), join<least>(v[6], v[7]));
  _mm256_store_ps(out, farther<least>(_mm256_permute2f128_ps(a, b, 0x31), _mm256_permute2f128_ps(a, b, 0x20)));
}

/// One column's part of read_group. The result is zeros, or NaN where an element is not finite.
template <DType type>
NIBBLE_FMA_INLINE __m256 read_column(const std::byte* p, int64_t count, float* out, __m256& low, __m256& high) {
  const __m256 zero = _mm256_setzero_ps(), first = load_floats<type>(p);
  __m256 sum = _mm256_mul_ps(first, zero), least = first, most = first;
  _mm256_store_ps(out, first);
#pragma GCC unroll 4
  for (int64_t j = lanes; j < count; j += lanes) {
    const __m256 v = load_floats<type>(p + static_cast<size_t>(j) * element_bytes(type));
    _mm256_store_ps(out + j, v);
    sum = _mm256_fmadd_ps(v, zero, sum);
    least = farther<true>(v, least);
    most = farther<false>(v, most);
  }
  low = least;
  high = most;
  return sum;
}

template <DType type>
NIBBLE_FMA_INLINE bool read_columns(const std::byte* rows, size_t row_bytes, int64_t count, float* out, int64_t stride,
                                    Ends& ends) {
  __m256 sum = _mm256_setzero_ps();
  for (int c = 0; c < panel_columns; c += lanes) {
    __m256 low[lanes], high[lanes];
    for (int i = 0; i < lanes; ++i, rows += row_bytes, out += stride)
      sum = _mm256_add_ps(sum, read_column<type>(rows, count, out, low[i], high[i]));
    reduce<true>(low, ends.low + c);
    reduce<false>(high, ends.high + c);
  }
  return _mm256_movemask_ps(_mm256_cmp_ps(sum, sum, _CMP_UNORD_Q)) == 0;
}

/// `count` elements of every column as floats, and their ends. False when one is not finite.
template <DType type>
NIBBLE_FMA bool read_group(const std::byte* rows, size_t row_bytes, int64_t count, float* out, int64_t stride,
                           Ends& ends) {
  if (count == 32) return read_columns<type>(rows, row_bytes, 32, out, stride, ends);  // the common one, without loops
  return read_columns<type>(rows, row_bytes, count, out, stride, ends);
}

NIBBLE_FMA_INLINE __m256 rounded(DType type, __m256 v) {
  if (type == DType::f16) return _mm256_cvtph_ps(_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  if (type == DType::f32) return v;
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  return _mm256_castsi256_ps(_mm256_and_si256(up, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}

NIBBLE_FMA_INLINE bool all_finite(__m256 v) {
  const __m256 difference = _mm256_sub_ps(v, v);
  return _mm256_movemask_ps(_mm256_cmp_ps(difference, difference, _CMP_UNORD_Q)) == 0;
}

/// Quotients by f16 scales are rounded by a multiplication and a correction (encode_block), others by a division.
bool divides(const QuantLayout& layout) { return layout.scale != DType::f16; }

NIBBLE_FMA bool make_scales(const QuantLayout& layout, const Ends& ends, GroupLanes& out) {
  bool finite = true;
  const __m256 zero = _mm256_setzero_ps();
  for (int c = 0; c < panel_columns; c += lanes) {
    const __m256 low = _mm256_load_ps(ends.low + c), high = _mm256_load_ps(ends.high + c);
    Lanes found{};
    find_scale<Lanes>(layout, low, high, found);
    const __m256 scale = rounded(layout.scale, found), minimum = rounded(layout.scale, low);
    const __m256 none = _mm256_cmp_ps(scale, zero, _CMP_EQ_OQ);
    finite = finite && all_finite(scale);
    _mm256_store_ps(out.scale + c, scale);
    // a scale of 0 makes every quotient 0
    const __m256 infinity = _mm256_set1_ps(std::numeric_limits<float>::infinity());
    _mm256_store_ps(out.divisor + c, divides(layout) ? _mm256_blendv_ps(scale, infinity, none) : scale);
    _mm256_store_ps(out.inverse + c, _mm256_andnot_ps(none, _mm256_div_ps(_mm256_set1_ps(1), scale)));
    if (layout.zero_point == ZeroPoint::minimum) {
      finite = finite && all_finite(minimum);
      _mm256_store_ps(out.minimum + c, minimum);
      std::fill_n(out.zero + c, lanes, int16_t{0});
    } else if (layout.zero_point == ZeroPoint::symmetric) {
      std::fill_n(out.zero + c, lanes, static_cast<int16_t>(1 << (layout.bits - 1)));
    } else {
      const __m256 least = _mm256_min_ps(low, zero), top = _mm256_set1_ps(static_cast<float>((1 << layout.bits) - 1));
      const __m256 quotient = _mm256_div_ps(_mm256_sub_ps(zero, least), _mm256_blendv_ps(scale, infinity, none));
      alignas(32) int32_t zeros[lanes];
      _mm256_store_si256(reinterpret_cast<__m256i*>(zeros), _mm256_cvtps_epi32(_mm256_min_ps(quotient, top)));
      std::copy_n(zeros, lanes, out.zero + c);
    }
  }
  return finite;
}

/// v / d rounded to nearest even, as a correctly rounded quotient would be.
///
/// By multiplication: with q the product of v and 1 / d, both rounded, q + (v - q d) / d is within a share of 2^-46 of
/// v / d before its last rounding. An f16 scale has 11 bits and v 24, so v / d is never nearer than a share of 2^-36 to
/// the middle of two floats: the last rounding goes where a division's would. Where v is so small that the correction
/// underflows, the integer is 0 either way.
template <bool division, bool minimum>
NIBBLE_FMA_INLINE __m256i nearest(__m256 v, __m256 d, __m256 inverse, __m256 least) {
  if (minimum) v = _mm256_sub_ps(v, least);
  if (division) {
    // far beyond any code, and an int
    const __m256 bound = _mm256_set1_ps(0x1p20f), q = _mm256_div_ps(v, d);
    return _mm256_cvtps_epi32(_mm256_max_ps(_mm256_min_ps(q, bound), _mm256_sub_ps(_mm256_setzero_ps(), bound)));
  }
  const __m256 q = _mm256_mul_ps(v, inverse);
  return _mm256_cvtps_epi32(_mm256_fmadd_ps(_mm256_fnmadd_ps(q, d, v), inverse, q));
}

constexpr size_t code_stride = 32;  // bytes of a column in what encode_block writes

/// Codes of 16 weights of column c, as int16: eight of each half of the two vectors.
template <bool division, bool minimum>
NIBBLE_FMA_INLINE __m256i encode_half(const float* x, const GroupLanes& s, int c) {
  const __m256 d = _mm256_broadcast_ss(s.divisor + c), inverse = _mm256_broadcast_ss(s.inverse + c);
  const __m256 least = minimum ? _mm256_broadcast_ss(s.minimum + c) : _mm256_setzero_ps();
  const __m256i a = nearest<division, minimum>(_mm256_load_ps(x), d, inverse, least);
  const __m256i b = nearest<division, minimum>(_mm256_load_ps(x + lanes), d, inverse, least);
  return _mm256_adds_epi16(_mm256_packs_epi32(a, b), _mm256_set1_epi16(s.zero[c]));
}

/// Codes of 32 weights of every column, the first 16 by `first`: dwords of four codes in the order 0 2 4 6 1 3 5 7.
template <bool division, bool minimum>
NIBBLE_FMA void encode_block(const float* x, int64_t stride, const GroupLanes& first, const GroupLanes& second, int top,
                             std::byte* codes) {
  const __m256i most = _mm256_set1_epi8(static_cast<char>(top));
  for (int c = 0; c < panel_columns; ++c, x += stride, codes += code_stride) {
    const __m256i a = encode_half<division, minimum>(x, first, c);
    const __m256i b = encode_half<division, minimum>(x + 2 * lanes, second, c);
    // packing saturates at 0 and at 255
    _mm256_store_si256(reinterpret_cast<__m256i*>(codes), _mm256_min_epu8(_mm256_packus_epi16(a, b), most));
  }
}

/// Even dwords of columns c and c + 4, with the odd ones behind them in the high nibbles.
NIBBLE_AVX2 __m256i paired_dwords(const std::byte* codes, int c) {
  const std::byte *a = codes + static_cast<size_t>(c) * code_stride, *b = a + 4 * code_stride;
  return _mm256_or_si256(two_rows(a, b), _mm256_slli_epi32(two_rows(a + 16, b + 16), 4));
}

NIBBLE_AVX2 void store_lines(const Line* lines, int count, std::byte* out) {
  for (int l = 0; l < count; ++l)
    for (int h = 0; h < 2; ++h) store(out + 64 * l, h, lines[l].half[h]);
}

/// The code block of what encode_block wrote.
template <int bits>
NIBBLE_FMA void write_block(const std::byte* codes, std::byte* out) {
  Line even[4], odd[4], w[8];
  if (bits == 4) {
    for (int h = 0; h < 2; ++h, codes += lanes * code_stride)
      transpose_half(paired_dwords(codes, 0), paired_dwords(codes, 1), paired_dwords(codes, 2), paired_dwords(codes, 3),
                     h, even);
    return store_lines(even, 4, out);
  }
  transpose(codes, code_stride, even);
  transpose(codes + 16, code_stride, odd);
  for (int i = 0; i < 4; ++i) w[2 * i] = even[i], w[2 * i + 1] = odd[i];
  if (bits == 8) return store_lines(w, 8, out);
  if (bits & 4)
    for (int l = 0; l < 4; ++l, out += 64) write_bits<4>(w + 2 * l, 0, out);
  if (bits & 2)
    for (int l = 0; l < 2; ++l, out += 64) write_bits<2>(w + 4 * l, bits & 4, out);
  if (bits & 1) write_bits<1>(w, bits & 6, out);
}

constexpr decltype(&write_block<1>) write_blocks[] = {write_block<1>, write_block<2>, write_block<3>, write_block<4>,
                                                      write_block<5>, write_block<6>, write_block<7>, write_block<8>};
constexpr decltype(&encode_block<false, false>) encode_blocks[2][2] = {
    {encode_block<false, false>, encode_block<false, true>}, {encode_block<true, false>, encode_block<true, true>}};

}  // namespace

bool FastQuantizer::supports(const QuantLayout& layout, int64_t k) {
  const bool plain = layout.bits != 0 && layout.codebook == 0 && layout.sub_groups == 0;
  return plain && k > 0 && k % block_k == 0 && supported(Isa::avx2);
}

FastQuantizer::FastQuantizer(const QuantLayout& layout, DType elements, int64_t n, int64_t k)
    : layout_(layout),
      geometry_(panel_geometry(layout, n, k)),
      k_(k),
      group_(layout.group != 0 ? layout.group : k),
      unit_(std::max<int64_t>(group_, block_k)),
      element_bytes_(element_bytes(elements)),
      floats_(static_cast<size_t>(panel_columns * unit_) * sizeof(float)),
      read_(elements == DType::f32   ? read_group<DType::f32>
            : elements == DType::f16 ? read_group<DType::f16>
                                     : read_group<DType::bf16>),
      encode_(encode_blocks[divides(layout)][layout.zero_point == ZeroPoint::minimum]),
      write_(write_blocks[layout.bits - 1]) {}

void FastQuantizer::write_scales(const GroupLanes& scales, int64_t k, std::byte* panel) const {
  const size_t line = panel_columns * element_bytes(layout_.scale);
  for (int64_t g = k / geometry_.group; g * geometry_.group < k + group_; ++g) {
    std::byte* out = panel + geometry_.scales_offset + static_cast<size_t>(g) * geometry_.scale_group_bytes;
    quant::write_scales(layout_.scale, scales.scale, out);
    if (layout_.zero_point == ZeroPoint::minimum) quant::write_scales(layout_.scale, scales.minimum, out + line);
    for (int c = 0; layout_.zero_point == ZeroPoint::integer && c < panel_columns; ++c)
      out[line + static_cast<size_t>(c)] = static_cast<std::byte>(scales.zero[c]);
  }
}

/// Weights k to k + unit as floats, and the scales of their groups.
bool FastQuantizer::read_unit(const std::byte* rows, int64_t k, std::byte* panel, GroupLanes* scales) {
  Ends ends;
  for (int64_t j = 0; j < unit_; j += group_, ++scales) {
    const std::byte* from = rows + static_cast<size_t>(k + j) * element_bytes_;
    if (!read_(from, static_cast<size_t>(k_) * element_bytes_, group_, floats() + j, unit_, ends)) return false;
    if (!make_scales(layout_, ends, *scales)) return false;
    write_scales(*scales, k + j, panel);
  }
  return true;
}

bool FastQuantizer::panel(const std::byte* rows, std::byte* panel) {
  alignas(64) std::byte codes[panel_columns * code_stride];
  GroupLanes scales[2];
  const int top = (1 << layout_.bits) - 1;
  std::byte* out = panel;
  for (int64_t k = 0; k < k_; k += unit_) {
    if (!read_unit(rows, k, panel, scales)) return false;
    for (int64_t j = 0; j < unit_; j += block_k, out += geometry_.code_block_bytes) {
      encode_(floats() + j, unit_, scales[0], scales[unit_ > group_ ? 1 : 0], top, codes);
      write_(codes, out);
    }
  }
  const size_t scale_bytes = static_cast<size_t>(geometry_.groups) * geometry_.scale_group_bytes;
  std::fill(panel + geometry_.scales_offset + scale_bytes, panel + geometry_.panel_bytes, std::byte{0});
  return true;
}

}  // namespace nibble::quant
