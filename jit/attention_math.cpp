// SPDX-License-Identifier: Apache-2.0
// The float part of attention. Scores are in units of log2: p = 2^(score - maximum).
#include <algorithm>
#include <cmath>

#include "jit/attention.h"
#include "jit/hadamard.h"
#include "tensor/dtype.h"

#include "jit/vector_math.h"

namespace nibble::jit {

NIBBLE_AVX2_BEGIN

namespace {

// Finite, so that a row without any visible position keeps factors of 2^0.
constexpr float no_maximum = -3.402823466e38f;
constexpr float log2_e = 1.44269502f;

__m256 softcapped(__m256 s, float cap) {
  const __m256 bounded = vec::tanh(_mm256_mul_ps(s, _mm256_set1_ps(1.0f / cap)));
  return _mm256_mul_ps(bounded, _mm256_set1_ps(cap * log2_e));
}

float exp2_of(float x) { return _mm256_cvtss_f32(vec::exp2(_mm256_set1_ps(x))); }

}  // namespace

namespace {

/// The columns of a block that a row sees; first and last are columns.
struct Visible {
  int32_t before, behind;
  bool whole;
  Visible(int64_t first, int64_t last, const AttentionColumns& columns)
      : before(static_cast<int32_t>(std::max<int64_t>(first, 0) - 1)),
        behind(static_cast<int32_t>(std::min<int64_t>(last, block_positions - 1) + 1)),
        whole(first <= columns.from && last >= columns.to - 1) {}
  /// Of eight: all ones.
  __m256 mask(int64_t column) const {
    const __m256i at =
        _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(static_cast<int>(column)));
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_cmpgt_epi32(at, _mm256_set1_epi32(before)),
                                                _mm256_cmpgt_epi32(_mm256_set1_epi32(behind), at)));
  }
};

/// What happens to a score between the dot product and the softmax, in place; `distance` is that of column 0 to the
/// row.
struct Shaping {
  float softcap, slope;
  const float* tails;  ///< what the tails of keys add, if it is not in the scores yet
  int distance;
  bool any() const { return softcap != 0 || slope != 0 || tails != nullptr; }
  void apply(const AttentionColumns& columns, float* scores) const {
    const __m256i lanes = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(distance));
    for (int64_t c = columns.from; c < columns.to; c += 8) {
      __m256 s = _mm256_loadu_ps(scores + c);
      if (tails != nullptr) s = _mm256_add_ps(s, _mm256_loadu_ps(tails + c));
      if (softcap != 0) s = softcapped(s, softcap);
      const __m256 distances = _mm256_cvtepi32_ps(_mm256_add_epi32(lanes, _mm256_set1_epi32(static_cast<int>(c))));
      if (slope != 0) s = _mm256_fmadd_ps(_mm256_set1_ps(slope), distances, s);
      _mm256_storeu_ps(scores + c, s);
    }
  }
};

/// The largest visible score.
template <bool whole>
float block_maximum(const float* scores, const AttentionColumns& columns, const Visible& visible) {
  __m256 most[4];
  for (__m256& m : most) m = _mm256_set1_ps(no_maximum);
  for (int64_t c = columns.from; c < columns.to; c += 32) {
    for (int i = 0; i < 4; ++i) {
      __m256 s = _mm256_loadu_ps(scores + c + 8 * i);
      if (!whole) s = _mm256_blendv_ps(_mm256_set1_ps(no_maximum), s, visible.mask(c + 8 * i));
      most[i] = _mm256_max_ps(most[i], s);
    }
  }
  return vec::max(_mm256_max_ps(_mm256_max_ps(most[0], most[1]), _mm256_max_ps(most[2], most[3])));
}

/// 2^x for x up to 0 within 2 ulp, 2^-126 for less than -126. The exponent is added to the bits of a power between
/// 2^-0.5 and 2^0.5, whose rounded part comes from the low bits of a float so large that its unit is 1.
__m256 exp2_up_to_0(__m256 x) {
  const __m256 large = _mm256_set1_ps(12582912.0f);  // 1.5 * 2^23
  x = _mm256_max_ps(_mm256_set1_ps(-126.0f), x);
  const __m256 n = _mm256_add_ps(x, large);
  const __m256 p = vec::exp2_fraction(_mm256_sub_ps(x, _mm256_sub_ps(n, large)));
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(n), 23)));
}

/// 2^(scores - maximum), 0 where hidden, in place; returns their sum.
template <bool whole>
float block_weights(float* scores, float maximum, const AttentionColumns& columns, const Visible& visible) {
  const __m256 shift = _mm256_set1_ps(maximum);
  __m256 sums[4];
  for (__m256& s : sums) s = _mm256_setzero_ps();
  for (int64_t c = columns.from; c < columns.to; c += 32) {
    for (int i = 0; i < 4; ++i) {
      __m256 w = exp2_up_to_0(_mm256_sub_ps(_mm256_loadu_ps(scores + c + 8 * i), shift));
      if (!whole) w = _mm256_and_ps(w, visible.mask(c + 8 * i));
      sums[i] = _mm256_add_ps(sums[i], w);
      _mm256_storeu_ps(scores + c + 8 * i, w);
    }
  }
  return vec::sum(_mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3])));
}

/// What x is multiplied with so that `most` becomes `limit`, or 0.
float code_factor(float most, float limit) { return most == 0 ? 0.0f : std::min(limit / most, 3.402823466e38f); }

__m256i codes_of(__m256 a, __m256 b, float factor) {
  const __m256 f = _mm256_set1_ps(factor);
  const __m256i pairs =
      _mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(a, f)), _mm256_cvtps_epi32(_mm256_mul_ps(b, f)));
  return _mm256_permute4x64_epi64(pairs, 0xd8);
}

/// The weights times their columns' scales as int16; returns what a code is worth. Scales of hidden columns may be
/// anything, so that the products are masked too. Sums of a block's products with codes of up to 127 fit in 32 bits.
template <bool whole>
float code_weights(float* weights, const float* scales, const AttentionColumns& columns, const Visible& visible,
                   int16_t* codes) {
  constexpr float limit = 32767;
  static_assert(int64_t{32767} * 127 * block_positions < (int64_t{1} << 31));
  __m256 most[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  for (int64_t c = columns.from; c < columns.to; c += 16) {
    for (int i = 0; i < 2; ++i) {
      __m256 w = _mm256_mul_ps(_mm256_loadu_ps(weights + c + 8 * i), _mm256_loadu_ps(scales + c + 8 * i));
      if (!whole) w = _mm256_and_ps(w, visible.mask(c + 8 * i));
      most[i] = _mm256_max_ps(most[i], w);
      _mm256_storeu_ps(weights + c + 8 * i, w);
    }
  }
  const float max = vec::max(_mm256_max_ps(most[0], most[1]));
  const float factor = code_factor(max, limit);
  for (int64_t c = columns.from; c < columns.to; c += 16) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + c),
                        codes_of(_mm256_loadu_ps(weights + c), _mm256_loadu_ps(weights + c + 8), factor));
  }
  return max / limit;
}

/// x * scale, rotated, as int16 codes, 0 behind them up to `padded`; returns what a code is worth. Sums of `padded`
/// products with codes of up to 127 fit in 32 bits.
float code_query(const float* x, int64_t count, float scale, int64_t padded, int16_t* codes) {
  const auto limit = static_cast<float>(std::min<int64_t>(32767, 0x7fffffff / (127 * padded)));
  float rotated[max_head_dim], most = 0;
  std::copy_n(x, count, rotated);
  hadamard(rotated, count);
  // keys are rotated too, so that the product is a block's size too large: a power of two
  scale /= static_cast<float>(hadamard_block(count));
  for (int64_t i = 0; i < count; ++i) {
    rotated[i] *= scale;
    most = std::max(most, std::fabs(rotated[i]));
  }
  const float factor = code_factor(most, limit);
  for (int64_t i = 0; i < count; ++i) codes[i] = static_cast<int16_t>(_mm_cvtss_si32(_mm_set_ss(rotated[i] * factor)));
  std::fill(codes + count, codes + padded, int16_t{0});
  return most / limit;
}

}  // namespace

void attention_softmax(const AttentionShape& shape, const AttentionColumns& columns, int64_t begin, int64_t end,
                       AttentionWorkspace& work) {
  const auto visible_of = [&](int64_t r) {
    return Visible(work.first[r] - columns.position, work.last[r] - columns.position, columns);
  };
  // Pass by pass over the rows, so that the latencies of one row hide behind the others.
  for (int64_t r = begin; r < end; ++r) {
    const Visible visible = visible_of(r);
    float* scores = work.scores + r * block_positions;
    const Shaping shaping{shape.softcap, shape.slopes < 0 ? 0 : work.slope[r],
                          shape.coded() && shape.tail_dim > 0 ? work.tails + r * block_positions : nullptr,
                          static_cast<int>(columns.position) - work.position[r]};
    if (shaping.any()) shaping.apply(columns, scores);
    const float before = work.maximum[r];
    const float most =
        visible.whole ? block_maximum<true>(scores, columns, visible) : block_maximum<false>(scores, columns, visible);
    work.maximum[r] = std::max(before, most);
    work.factor[r] = before - work.maximum[r];
  }
  for (int64_t r = begin; r < end; r += 8)
    vec::store(work.factor + r, end - r, exp2_up_to_0(vec::load(work.factor + r, end - r)));
  for (int64_t r = begin; r < end; ++r) {
    const Visible visible = visible_of(r);
    float* scores = work.scores + r * block_positions;
    const float maximum = work.maximum[r];
    const float sum = visible.whole ? block_weights<true>(scores, maximum, columns, visible)
                                    : block_weights<false>(scores, maximum, columns, visible);
    work.sum[r] = std::fma(work.sum[r], work.factor[r], sum);
    if (!shape.coded()) continue;
    int16_t* codes = work.weight_codes + r * block_positions;
    work.weight_scale[r] = visible.whole ? code_weights<true>(scores, work.value_scales, columns, visible, codes)
                                         : code_weights<false>(scores, work.value_scales, columns, visible, codes);
  }
  for (int64_t r = begin; r < end; ++r) {
    if (work.factor[r] != 1.0f) attention_scale(work.output + r * shape.padded_dim, shape.padded_dim, work.factor[r]);
  }
}

void attention_scale(float* output, int64_t count, float factor) {
  const __m256 f = _mm256_set1_ps(factor);
  for (int64_t i = 0; i < count; i += 8) _mm256_storeu_ps(output + i, _mm256_mul_ps(_mm256_loadu_ps(output + i), f));
}

void attention_clear(const AttentionShape& shape, float& maximum, float& sum, float* output) {
  maximum = no_maximum;
  sum = 0;
  std::fill_n(output, shape.padded_dim, 0.0f);
}

void attention_start(const AttentionShape& shape, const KernelArgs& args, int64_t head, float& maximum, float& sum,
                     float* output) {
  attention_clear(shape, maximum, sum, output);
  if (shape.sinks < 0) return;
  maximum = std::max(no_maximum, args.in[shape.sinks].as<float>()[head] * log2_e);
  sum = 1;
}

void attention_merge(const AttentionShape& shape, float& total_maximum, float& total_sum, float* total, float maximum,
                     float sum, const float* output) {
  const float merged = std::max(total_maximum, maximum);
  const float old_factor = exp2_of(total_maximum - merged), factor = exp2_of(maximum - merged);
  const __m256 a = _mm256_set1_ps(old_factor), b = _mm256_set1_ps(factor);
  for (int64_t i = 0; i < shape.padded_dim; i += 8) {
    const __m256 old = _mm256_mul_ps(_mm256_loadu_ps(total + i), a);
    _mm256_storeu_ps(total + i, _mm256_fmadd_ps(_mm256_loadu_ps(output + i), b, old));
  }
  total_maximum = merged;
  total_sum = std::fma(sum, factor, total_sum * old_factor);
}

void attention_finish(const AttentionShape& shape, float sum, const float* total, float* out) {
  const __m256 inverse = _mm256_set1_ps(sum == 0 ? 0.0f : 1.0f / sum), zero = _mm256_setzero_ps();
  for (int64_t i = 0; i < shape.value_dim; i += 8) {
    // + 0 turns -0 into 0.
    const __m256 y = _mm256_add_ps(_mm256_mul_ps(_mm256_loadu_ps(total + i), inverse), zero);
    if (i + 8 <= shape.value_dim) _mm256_storeu_ps(out + i, y);
    else _mm256_maskstore_ps(out + i, vec::first_lanes(shape.value_dim - i), y);
  }
  if (!shape.coded()) return;
  hadamard(out, shape.value_dim);
  const float back = 1.0f / static_cast<float>(hadamard_block(shape.value_dim));
  for (int64_t i = 0; i < shape.value_dim; ++i) out[i] = out[i] * back + 0.0f;
}

void attention_load(const AttentionShape& shape, const KernelArgs& args, const AttentionPart& part,
                    AttentionWorkspace& work) {
  const Tensor& q = args.in[0];
  const int64_t d = shape.head_dim;
  for (int64_t r = 0; r < part.rows(); ++r) {
    const int64_t row = part.token(r), head = part.head(shape, r);
    const float* in = q.as<float>() + row * q.strides[0] + head * d;
    if (shape.coded()) {
      const int64_t keys = 2 * shape.key_pairs(), tails = 2 * shape.tail_pairs();
      int16_t* codes = work.query_codes + r * (keys + tails);
      work.query_scale[r] = code_query(in, shape.key_dim(), shape.scale, keys, codes);
      if (tails > 0)
        work.tail_scale[r] = code_query(in + shape.key_dim(), shape.tail_dim, shape.scale, tails, codes + keys);
    } else {
      for (int64_t i = 0; i < d; ++i) work.query[r * d + i] = in[i] * shape.scale;
    }
    work.position[r] = args.in[3].as<int32_t>()[row];
    work.last[r] = static_cast<int32_t>(shape.last_position(args, row));
    work.first[r] = static_cast<int32_t>(shape.first_position(args, row));
    if (shape.slopes >= 0) work.slope[r] = args.in[shape.slopes].as<float>()[head] * log2_e;
    attention_start(shape, args, head, work.total_maximum[r], work.total_sum[r], work.total + r * shape.padded_dim);
  }
}

namespace {

/// `count` elements, `step` apart in the page.
void store_f16(const float* x, int64_t count, uint16_t* out, int64_t step) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i eight = _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT);
    if (step == 1) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), eight);
      continue;
    }
    alignas(16) uint16_t column[8];
    _mm_store_si128(reinterpret_cast<__m128i*>(column), eight);
    for (int j = 0; j < 8; ++j) out[(i + j) * step] = column[j];
  }
  for (; i < count; ++i) out[i * step] = f32_to_f16(x[i]);
}

void store_f32(const float* x, int64_t count, float* out, int64_t step) {
  for (int64_t i = 0; i < count; ++i) out[i * step] = x[i];
}

void store_bf16(const float* x, int64_t count, uint16_t* out, int64_t step) {
  for (int64_t i = 0; i < count; ++i) out[i * step] = f32_to_bf16(x[i]);
}

/// Codes of the rotated row at the places that `at` names; returns what they are worth.
template <class At>
float store_i8(const float* row, int64_t count, std::byte* page, At at) {
  float x[max_head_dim];
  std::copy_n(row, count, x);
  hadamard(x, count);
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 most = _mm256_setzero_ps();
  for (int64_t i = 0; i < count; i += 8)
    most = _mm256_max_ps(most, _mm256_andnot_ps(sign, vec::load(x + i, count - i)));
  const float max = vec::max(most);
  const __m256 inverse = _mm256_set1_ps(max == 0 ? 0.0f : 127.0f / max);
  for (int64_t i = 0; i < count; i += 8) {
    const __m256 q = _mm256_mul_ps(vec::load(x + i, count - i), inverse);
    const __m256 bounded = _mm256_max_ps(_mm256_set1_ps(-127.0f), _mm256_min_ps(_mm256_set1_ps(127.0f), q));
    alignas(32) int32_t codes[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(codes), _mm256_cvtps_epi32(bounded));
    for (int64_t j = 0; j < std::min<int64_t>(8, count - i); ++j) page[at(i + j)] = static_cast<std::byte>(codes[j]);
  }
  return max / 127.0f;
}

/// One row of one kv head into a page whose elements of a row are `step` apart, the first at `first`.
void store_floats(DType type, const float* x, int64_t count, std::byte* page, int64_t first, int64_t step) {
  if (type == DType::f32) store_f32(x, count, reinterpret_cast<float*>(page) + first, step);
  else if (type == DType::f16) store_f16(x, count, reinterpret_cast<uint16_t*>(page) + first, step);
  else store_bf16(x, count, reinterpret_cast<uint16_t*>(page) + first, step);
}

/// One row of `size` elements into a page of `bytes` bytes that has them in a column.
void store_column(const AttentionShape& shape, const float* x, int64_t size, std::byte* page, int64_t bytes,
                  int64_t slot) {
  if (!shape.coded()) return store_floats(shape.pages, x, size, page, slot, page_positions);
  shape.scales(page, bytes)[slot] =
      store_i8(x, size, page, [slot](int64_t i) { return (i / 2 * page_positions + slot) * 2 + i % 2; });
}

void store_value(const AttentionShape& shape, const float* x, std::byte* page, int64_t slot) {
  const int64_t e = shape.value_dim;
  if (!shape.coded()) return store_floats(shape.pages, x, e, page, slot * e, 1);
  shape.scales(page, shape.second_bytes())[slot] =
      store_i8(x, e, page, [slot, e](int64_t i) { return (slot / 2 * e + i) * 2 + slot % 2; });
}

}  // namespace

void attention_store(const AttentionShape& shape, const KernelArgs& args, int64_t begin, int64_t end, int64_t kv_head) {
  const Tensor &k = args.in[1], &v = args.in[2];
  const int32_t *positions = args.in[3].as<int32_t>(), *sequences = args.in[4].as<int32_t>();
  const int32_t* table = args.in[5].as<int32_t>();
  for (int64_t row = begin; row < end; ++row) {
    const int64_t page =
        table[sequences[row] * shape.max_pages + positions[row] / page_positions] * shape.kv_heads + kv_head;
    const int64_t slot = positions[row] % page_positions;
    const float* k_row = k.as<float>() + row * k.strides[0] + kv_head * shape.key_dim();
    const float* v_row = v.as<float>() + row * v.strides[0] + kv_head * shape.second_dim();
    store_column(shape, k_row, shape.key_dim(), args.in[6].data + page * shape.key_bytes(), shape.key_bytes(), slot);
    std::byte* second = args.in[7].data + page * shape.second_bytes();
    if (shape.tail_dim > 0) store_column(shape, v_row, shape.tail_dim, second, shape.second_bytes(), slot);
    else store_value(shape, v_row, second, slot);
  }
}

NIBBLE_AVX2_END

}  // namespace nibble::jit
