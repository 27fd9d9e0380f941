// SPDX-License-Identifier: Apache-2.0
// The float part of attention. Scores are in units of log2: p = 2^(score - maximum).
#include <algorithm>
#include <cmath>

#include "jit/attention.h"
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

/// The slots of eight that a row sees: all ones. first and last are relative to the page.
struct Visible {
  __m256i low, high;
  bool whole;
  Visible(int64_t first, int64_t last)
      : low(_mm256_set1_epi32(static_cast<int>(std::clamp<int64_t>(first, 0, page_positions)) - 1)),
        high(_mm256_set1_epi32(static_cast<int>(std::clamp<int64_t>(last, -1, page_positions - 1)) + 1)),
        whole(first <= 0 && last >= page_positions - 1) {}
  __m256 mask(int i) const {
    const __m256i slot = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(8 * i));
    return _mm256_castsi256_ps(_mm256_and_si256(_mm256_cmpgt_epi32(slot, low), _mm256_cmpgt_epi32(high, slot)));
  }
};

/// The largest visible score; applies the softcap in place.
float page_maximum(float softcap, float* scores, const Visible& visible) {
  __m256 s[4];
  for (int i = 0; i < 4; ++i) s[i] = _mm256_loadu_ps(scores + 8 * i);
  if (softcap != 0) {
    for (int i = 0; i < 4; ++i) _mm256_storeu_ps(scores + 8 * i, s[i] = softcapped(s[i], softcap));
  }
  if (!visible.whole) {
    for (int i = 0; i < 4; ++i) s[i] = _mm256_blendv_ps(_mm256_set1_ps(no_maximum), s[i], visible.mask(i));
  }
  return vec::max(_mm256_max_ps(_mm256_max_ps(s[0], s[1]), _mm256_max_ps(s[2], s[3])));
}

/// scores = 2^(scores - maximum), 0 where hidden; returns their sum.
float page_weights(float* scores, float maximum, const Visible& visible) {
  __m256 s[4];
  const __m256 shift = _mm256_set1_ps(maximum);
  for (int i = 0; i < 4; ++i) {
    s[i] = vec::exp2(_mm256_sub_ps(_mm256_loadu_ps(scores + 8 * i), shift));
    if (!visible.whole) s[i] = _mm256_and_ps(s[i], visible.mask(i));
    _mm256_storeu_ps(scores + 8 * i, s[i]);
  }
  return vec::sum(_mm256_add_ps(_mm256_add_ps(s[0], s[1]), _mm256_add_ps(s[2], s[3])));
}

}  // namespace

void attention_softmax(const AttentionShape& shape, int64_t first_position, int64_t begin, int64_t end, AttentionWorkspace& work) {
  // Pass by pass over the rows, so that the latencies of one row hide behind the others.
  for (int64_t r = begin; r < end; ++r) {
    const Visible visible(work.first[r] - first_position, work.last[r] - first_position);
    const float before = work.maximum[r];
    work.maximum[r] = std::max(before, page_maximum(shape.softcap, work.scores + r * page_positions, visible));
    work.factor[r] = before - work.maximum[r];
  }
  for (int64_t r = begin; r < end; r += 8) vec::store(work.factor + r, end - r, vec::exp2(vec::load(work.factor + r, end - r)));
  for (int64_t r = begin; r < end; ++r) {
    const Visible visible(work.first[r] - first_position, work.last[r] - first_position);
    const float sum = page_weights(work.scores + r * page_positions, work.maximum[r], visible);
    work.sum[r] = std::fma(work.sum[r], work.factor[r], sum);
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
  for (int64_t i = 0; i < shape.head_dim; i += 8) {
    // + 0 turns -0 into 0.
    const __m256 y = _mm256_add_ps(_mm256_mul_ps(_mm256_loadu_ps(total + i), inverse), zero);
    if (i + 8 <= shape.head_dim) _mm256_storeu_ps(out + i, y);
    else _mm256_maskstore_ps(out + i, vec::first_lanes(shape.head_dim - i), y);
  }
}

void attention_load(const AttentionShape& shape, const KernelArgs& args, AttentionTile tile, int64_t kv_head,
                    AttentionWorkspace& work) {
  const Tensor& q = args.in[0];
  const int32_t* positions = args.in[3].as<int32_t>();
  const int64_t d = shape.head_dim;
  int64_t r = 0;
  for (int64_t row = tile.row; row < tile.row + tile.rows; ++row) {
    const float* in = q.as<float>() + row * q.strides[0] + kv_head * shape.heads_per_kv * d;
    for (int64_t h = 0; h < shape.heads_per_kv; ++h, ++r) {
      for (int64_t i = 0; i < d; ++i) work.query[r * d + i] = in[h * d + i] * shape.scale;
      work.last[r] = positions[row];
      work.first[r] = shape.window > 0 ? static_cast<int32_t>(std::max<int64_t>(0, positions[row] - shape.window + 1)) : 0;
      attention_clear(shape, work.total_maximum[r], work.total_sum[r], work.total + r * shape.padded_dim);
    }
  }
}

void attention_store(const AttentionShape& shape, const KernelArgs& args, int64_t begin, int64_t end, int64_t kv_head) {
  const Tensor &k = args.in[1], &v = args.in[2];
  const int32_t *positions = args.in[3].as<int32_t>(), *sequences = args.in[4].as<int32_t>();
  const int32_t* table = args.in[5].as<int32_t>();
  const int64_t d = shape.head_dim, page_elements = d * page_positions;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t page = table[sequences[row] * shape.max_pages + positions[row] / page_positions];
    const int64_t slot = positions[row] % page_positions, offset = (page * shape.kv_heads + kv_head) * page_elements;
    const float* k_row = k.as<float>() + row * k.strides[0] + kv_head * d;
    const float* v_row = v.as<float>() + row * v.strides[0] + kv_head * d;
    uint16_t* k_out = args.in[6].as<uint16_t>() + offset + slot;
    uint16_t* v_out = args.in[7].as<uint16_t>() + offset + slot * d;
    int64_t i = 0;
    for (; i + 8 <= d; i += 8) {
      alignas(16) uint16_t column[8];
      _mm_store_si128(reinterpret_cast<__m128i*>(column), _mm256_cvtps_ph(_mm256_loadu_ps(k_row + i), _MM_FROUND_TO_NEAREST_INT));
      for (int j = 0; j < 8; ++j) k_out[(i + j) * page_positions] = column[j];
      _mm_storeu_si128(reinterpret_cast<__m128i*>(v_out + i), _mm256_cvtps_ph(_mm256_loadu_ps(v_row + i), _MM_FROUND_TO_NEAREST_INT));
    }
    for (; i < d; ++i) {
      k_out[i * page_positions] = f32_to_f16(k_row[i]);
      v_out[i] = f32_to_f16(v_row[i]);
    }
  }
}

NIBBLE_AVX2_END

}  // namespace nibble::jit
