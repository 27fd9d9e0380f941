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

/// What happens to a score between the dot product and the softmax, in place; `distance` is that of slot 0 to the row.
struct Shaping {
  float softcap, slope;
  const float* key_scales;
  int distance;
  bool any() const { return softcap != 0 || slope != 0 || key_scales != nullptr; }
  void apply(float* scores) const {
    const __m256i slots = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(distance));
    for (int i = 0; i < 4; ++i) {
      __m256 s = _mm256_loadu_ps(scores + 8 * i);
      if (key_scales != nullptr) s = _mm256_mul_ps(s, _mm256_loadu_ps(key_scales + 8 * i));
      if (softcap != 0) s = softcapped(s, softcap);
      const __m256 distances = _mm256_cvtepi32_ps(_mm256_add_epi32(slots, _mm256_set1_epi32(8 * i)));
      if (slope != 0) s = _mm256_fmadd_ps(_mm256_set1_ps(slope), distances, s);
      _mm256_storeu_ps(scores + 8 * i, s);
    }
  }
};

/// The largest visible score.
float page_maximum(const float* scores, const Visible& visible) {
  __m256 s[4];
  for (int i = 0; i < 4; ++i) s[i] = _mm256_loadu_ps(scores + 8 * i);
  if (!visible.whole) {
    for (int i = 0; i < 4; ++i) s[i] = _mm256_blendv_ps(_mm256_set1_ps(no_maximum), s[i], visible.mask(i));
  }
  return vec::max(_mm256_max_ps(_mm256_max_ps(s[0], s[1]), _mm256_max_ps(s[2], s[3])));
}

/// scores = 2^(scores - maximum), 0 where hidden; returns their sum. Value scales, if any, multiply them afterwards; those
/// of hidden slots may hold anything.
float page_weights(float* scores, float maximum, const Visible& visible, const float* value_scales) {
  __m256 s[4];
  const __m256 shift = _mm256_set1_ps(maximum);
  for (int i = 0; i < 4; ++i) {
    s[i] = vec::exp2(_mm256_sub_ps(_mm256_loadu_ps(scores + 8 * i), shift));
    if (!visible.whole) s[i] = _mm256_and_ps(s[i], visible.mask(i));
    __m256 weight = s[i];
    if (value_scales != nullptr) {
      weight = _mm256_mul_ps(weight, _mm256_loadu_ps(value_scales + 8 * i));
      if (!visible.whole) weight = _mm256_and_ps(weight, visible.mask(i));
    }
    _mm256_storeu_ps(scores + 8 * i, weight);
  }
  return vec::sum(_mm256_add_ps(_mm256_add_ps(s[0], s[1]), _mm256_add_ps(s[2], s[3])));
}

}  // namespace

void attention_softmax(const AttentionShape& shape, const PageScales& page, int64_t begin, int64_t end, AttentionWorkspace& work) {
  const int64_t first_position = page.first_position;
  // Pass by pass over the rows, so that the latencies of one row hide behind the others.
  for (int64_t r = begin; r < end; ++r) {
    const Visible visible(work.first[r] - first_position, work.last[r] - first_position);
    float* scores = work.scores + r * page_positions;
    const Shaping shaping{shape.softcap, shape.slopes < 0 ? 0 : work.slope[r], page.keys,
                          static_cast<int>(first_position) - work.position[r]};
    if (shaping.any()) shaping.apply(scores);
    const float before = work.maximum[r];
    work.maximum[r] = std::max(before, page_maximum(scores, visible));
    work.factor[r] = before - work.maximum[r];
  }
  for (int64_t r = begin; r < end; r += 8) vec::store(work.factor + r, end - r, vec::exp2(vec::load(work.factor + r, end - r)));
  for (int64_t r = begin; r < end; ++r) {
    const Visible visible(work.first[r] - first_position, work.last[r] - first_position);
    const float sum = page_weights(work.scores + r * page_positions, work.maximum[r], visible, page.values);
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

void attention_start(const AttentionShape& shape, const KernelArgs& args, int64_t head, float& maximum, float& sum, float* output) {
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
}

void attention_load(const AttentionShape& shape, const KernelArgs& args, const AttentionPart& part, AttentionWorkspace& work) {
  const Tensor& q = args.in[0];
  const int64_t d = shape.head_dim;
  for (int64_t r = 0; r < part.rows(); ++r) {
    const int64_t row = part.token(shape, r), head = part.head(shape, r);
    const float* in = q.as<float>() + row * q.strides[0] + head * d;
    for (int64_t i = 0; i < d; ++i) work.query[r * d + i] = in[i] * shape.scale;
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

/// Codes, and what they are worth into `scale`.
void store_i8(const float* x, int64_t count, int8_t* out, int64_t step, float& scale) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 most = _mm256_setzero_ps();
  for (int64_t i = 0; i < count; i += 8) most = _mm256_max_ps(most, _mm256_andnot_ps(sign, vec::load(x + i, count - i)));
  const float max = vec::max(most);
  const __m256 inverse = _mm256_set1_ps(max == 0 ? 0.0f : 127.0f / max);
  scale = max / 127.0f;
  for (int64_t i = 0; i < count; i += 8) {
    const __m256 q = _mm256_mul_ps(vec::load(x + i, count - i), inverse);
    const __m256 bounded = _mm256_max_ps(_mm256_set1_ps(-127.0f), _mm256_min_ps(_mm256_set1_ps(127.0f), q));
    alignas(32) int32_t codes[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(codes), _mm256_cvtps_epi32(bounded));
    for (int64_t j = 0; j < std::min<int64_t>(8, count - i); ++j) out[(i + j) * step] = static_cast<int8_t>(codes[j]);
  }
}

/// One row of one kv head into slot `slot` of a page whose elements of a row are `step` apart, the first at `first`.
void store_slot(DType type, const float* x, int64_t count, std::byte* page, int64_t slot, int64_t first, int64_t step) {
  if (type == DType::i8) {
    auto* scales = reinterpret_cast<float*>(page + count * page_positions);
    store_i8(x, count, reinterpret_cast<int8_t*>(page) + first, step, scales[slot]);
  } else if (type == DType::f32) {
    store_f32(x, count, reinterpret_cast<float*>(page) + first, step);
  } else if (type == DType::f16) {
    store_f16(x, count, reinterpret_cast<uint16_t*>(page) + first, step);
  } else {
    store_bf16(x, count, reinterpret_cast<uint16_t*>(page) + first, step);
  }
}

}  // namespace

void attention_store(const AttentionShape& shape, const KernelArgs& args, int64_t begin, int64_t end, int64_t kv_head) {
  const Tensor &k = args.in[1], &v = args.in[2];
  const int32_t *positions = args.in[3].as<int32_t>(), *sequences = args.in[4].as<int32_t>();
  const int32_t* table = args.in[5].as<int32_t>();
  const int64_t d = shape.head_dim, dv = shape.value_dim;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t page = table[sequences[row] * shape.max_pages + positions[row] / page_positions] * shape.kv_heads + kv_head;
    const int64_t slot = positions[row] % page_positions;
    const float* k_row = k.as<float>() + row * k.strides[0] + kv_head * d;
    const float* v_row = v.as<float>() + row * v.strides[0] + kv_head * dv;
    store_slot(shape.pages, k_row, d, args.in[6].data + page * shape.page_bytes(d), slot, slot, page_positions);
    store_slot(shape.pages, v_row, dv, args.in[7].data + page * shape.page_bytes(dv), slot, slot * dv, 1);
  }
}

NIBBLE_AVX2_END

}  // namespace nibble::jit
