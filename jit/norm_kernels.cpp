// SPDX-License-Identifier: Apache-2.0
// rms_norm, layer_norm, quantize and norm_quantize with the bits of docs/ops.md, "Same bits".
#include <algorithm>
#include <cmath>
#include <cstring>

#include "jit/float_kernels.h"
#include "jit/row_split.h"
#include "tensor/ops/norm.h"
#include "tensor/packed.h"
#include "tensor/panel.h"

#include "jit/vector_math.h"

namespace nibble::jit {

namespace {

struct NormState {
  ops::Norm norm = ops::Norm::rms;
  float eps = 0;
};

NIBBLE_AVX2_BEGIN

/// What the elements of one row are computed from.
struct Normed {
  const float *x, *weight, *bias;  ///< weight and bias may be null
  float mean, inverse;
};

/// d = x - mean of the first `count` of eight elements, else 0; mean is 0 for rms_norm, and x - 0 is x.
__m256 centred(const float* x, __m256 mean, int64_t count) {
  return _mm256_and_ps(_mm256_sub_ps(vec::load(x, count), mean), _mm256_castsi256_ps(vec::first_lanes(count)));
}

/// Sixteen lanes in two registers, reduced 16 -> 8 -> 4 -> 2 -> 1.
float lane_sum(const float* x, int64_t n) {
  __m256 low = _mm256_setzero_ps(), high = low;
  int64_t j = 0;
  for (; j + 16 <= n; j += 16) {
    low = _mm256_add_ps(low, _mm256_loadu_ps(x + j));
    high = _mm256_add_ps(high, _mm256_loadu_ps(x + j + 8));
  }
  low = _mm256_add_ps(low, vec::load(x + j, n - j));
  high = _mm256_add_ps(high, vec::load(x + j + 8, n - j - 8));
  return vec::sum(_mm256_add_ps(low, high));
}
float lane_squares(const float* x, int64_t n, float mean) {
  const __m256 m = _mm256_set1_ps(mean);
  __m256 low = _mm256_setzero_ps(), high = low;
  int64_t j = 0;
  for (; j + 16 <= n; j += 16) {
    const __m256 a = _mm256_sub_ps(_mm256_loadu_ps(x + j), m), b = _mm256_sub_ps(_mm256_loadu_ps(x + j + 8), m);
    low = _mm256_fmadd_ps(a, a, low);
    high = _mm256_fmadd_ps(b, b, high);
  }
  const __m256 a = centred(x + j, m, n - j), b = centred(x + j + 8, m, n - j - 8);
  return vec::sum(_mm256_add_ps(_mm256_fmadd_ps(a, a, low), _mm256_fmadd_ps(b, b, high)));
}

Normed normed(const NormState& state, const KernelArgs& args, int64_t row) {
  const RowView view = row_view(args.in[0]);
  const float* x = args.in[0].as<float>() + row * view.stride;
  const float count = static_cast<float>(view.columns);
  const float mean = state.norm == ops::Norm::layer ? lane_sum(x, view.columns) / count : 0;
  const float squares = lane_squares(x, view.columns, mean);
  return {x, args.in.size() > 1 ? args.in[1].as<float>() : nullptr,
          args.in.size() > 2 ? args.in[2].as<float>() : nullptr, mean, 1.0f / std::sqrt(squares / count + state.eps)};
}

/// Elements j .. j + 7 of the result, `count` of which exist.
__m256 apply(const Normed& row, int64_t j, int64_t count) {
  const __m256 d = _mm256_sub_ps(vec::load(row.x + j, count), _mm256_set1_ps(row.mean));
  const __m256 y = _mm256_mul_ps(d, _mm256_set1_ps(row.inverse));
  if (!row.weight) return y;
  const __m256 w = vec::load(row.weight + j, count);
  return row.bias ? _mm256_fmadd_ps(y, w, vec::load(row.bias + j, count)) : _mm256_mul_ps(y, w);
}

void run_norm(const void* opaque, const KernelArgs& args) {
  const NormState& state = *static_cast<const NormState*>(opaque);
  const RowView view = row_view(args.in[0]), out = row_view(args.out);
  const Part part = split_rows(args.worker, view.rows, view.columns);
  for (int64_t r = part.row_begin; r < part.row_end; ++r) {
    const Normed row = normed(state, args, r);
    float* y = args.out.as<float>() + r * out.stride;
    for (int64_t j = 0; j < view.columns; j += 8) vec::store(y + j, view.columns - j, apply(row, j, view.columns - j));
  }
}

template <class T>
struct ActRow {
  T* values;
  float* scales;
  int32_t* sums;
  ActNeeds needs;
};

/// Sums of 32 values in eight lanes: the first 16 values in the low half, the others in the high half.
__m256i sums_of_32(const int8_t* q) {
  const __m256i bytes = _mm256_load_si256(reinterpret_cast<const __m256i*>(q));
  return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes), _mm256_set1_epi16(1));
}
__m256i sums_of_32(const int16_t* q) {
  const auto* at = reinterpret_cast<const __m256i*>(q);
  const __m256i a = _mm256_madd_epi16(_mm256_load_si256(at), _mm256_set1_epi16(1));
  const __m256i b = _mm256_madd_epi16(_mm256_load_si256(at + 1), _mm256_set1_epi16(1));
  return _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
}

/// Sums over each 16 of 128 values: lanes 0-3 of `low` the first halves of the four blocks of 32, of `high` the second.
template <class T>
void sums_of_16(const T* q, __m128i& low, __m128i& high) {
  __m256i block[4];
  for (int i = 0; i < 4; ++i) block[i] = sums_of_32(q + 32 * i);
  const __m256i sums = _mm256_hadd_epi32(_mm256_hadd_epi32(block[0], block[1]), _mm256_hadd_epi32(block[2], block[3]));
  low = _mm256_castsi256_si128(sums);
  high = _mm256_extracti128_si256(sums, 1);
}

/// The sums of 128 values q; `count` of them exist.
template <class T>
void store_sums(const ActRow<T>& row, const T* q, int64_t first, int64_t count) {
  alignas(32) int32_t sums[8];
  __m128i low, high;
  sums_of_16(q, low, high);
  __m256i all = _mm256_setr_m128i(_mm_unpacklo_epi32(low, high), _mm_unpackhi_epi32(low, high));
  if (row.needs.group >= 32) {
    __m128i wide = _mm_add_epi32(low, high);
    if (row.needs.group >= 64) wide = _mm_hadd_epi32(wide, wide);
    if (row.needs.group >= 128) wide = _mm_hadd_epi32(wide, wide);
    all = _mm256_castsi128_si256(wide);
  }
  if (row.needs.offset > 0) {
    all = _mm256_mullo_epi32(all, _mm256_set1_epi32(-row.needs.offset));
  } else {
    all = _mm256_castps_si256(_mm256_cvtepi32_ps(all));
  }
  _mm256_store_si256(reinterpret_cast<__m256i*>(sums), all);
  const int64_t groups = (count + row.needs.group - 1) / row.needs.group;
  std::memcpy(row.sums + first / row.needs.group, sums, static_cast<size_t>(groups) * sizeof(int32_t));
}

__m256i quantized(const float* y, __m256 inverse, __m256 limit) {
  const __m256 scaled = _mm256_mul_ps(_mm256_load_ps(y), inverse);
  // NaN becomes -limit like everything below it.
  return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(scaled, _mm256_xor_ps(limit, _mm256_set1_ps(-0.0f))), limit));
}

void store_32(__m256i a, __m256i b, int8_t* q) {
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_store_si256(reinterpret_cast<__m256i*>(q), _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a, b), order));
}
void store_32(__m256i a, __m256i b, int16_t* q) {
  _mm256_store_si256(reinterpret_cast<__m256i*>(q), _mm256_permute4x64_epi64(a, 0xd8));
  _mm256_store_si256(reinterpret_cast<__m256i*>(q + 16), _mm256_permute4x64_epi64(b, 0xd8));
}

/// 128 elements from y, `count` of which exist, times the inverse of their scale's group.
template <class T>
void quantize_128(const ActRow<T>& row, const float* y, const float* inverses, int64_t first, int64_t count) {
  alignas(32) T q[128];
  const __m256 limit = _mm256_set1_ps(static_cast<float>(row.needs.limit()));
  for (int i = 0; i < 128; i += 32) {
    const __m256 inverse = _mm256_set1_ps(inverses[i / act_group(row.needs.group)]);
    const __m256i a = _mm256_packs_epi32(quantized(y + i, inverse, limit), quantized(y + i + 8, inverse, limit));
    const __m256i b = _mm256_packs_epi32(quantized(y + i + 16, inverse, limit), quantized(y + i + 24, inverse, limit));
    store_32(a, b, q + i);
  }
  const int64_t padded = (count + block_k - 1) / block_k * block_k;
  std::memcpy(row.values + first, q, static_cast<size_t>(padded) * sizeof(T));
  store_sums(row, q, first, count);
}

/// Eight elements into y, 0 beyond `count`; `size` takes part in their maximum.
inline void gather(const Normed& row, bool norm, int64_t j, int64_t count, float* y, __m256& size) {
  __m256 v = norm ? apply(row, j, count) : vec::load(row.x + j, count);
  if (count < 8) v = _mm256_and_ps(v, _mm256_castsi256_ps(vec::first_lanes(count)));
  size = _mm256_max_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), v), size);  // in this order NaN does not count
  _mm256_store_ps(y, v);
}

/// Elements first .. first + group - 1 into y, zero padded; their maximum.
float gather_group(const Normed& row, bool norm, int64_t first, int64_t group, int64_t count, float* y) {
  __m256 size = _mm256_setzero_ps();
  if (count >= group) {
    for (int64_t i = 0; i < group; i += 8) gather(row, norm, first + i, 8, y + i, size);
  } else {
    for (int64_t i = 0; i < group; i += 8) gather(row, norm, first + i, std::max<int64_t>(count - i, 0), y + i, size);
  }
  return vec::max(size);
}

// Several groups at once: one group's maximum and quotient are waited for while the next are gathered.
constexpr int64_t at_once = 1024, most_groups = at_once / 32;

template <class T>
void quantize_row(const ActRow<T>& act, const Normed& row, bool norm, int64_t n) {
  const int64_t group = act_group(act.needs.group);
  for (int64_t first = 0; first < n; first += at_once) {
    alignas(32) float y[at_once], max[most_groups] = {}, inverse[most_groups];
    const int64_t count = std::min(at_once, n - first), groups = (count + group - 1) / group;
    for (int64_t g = 0; g < groups; ++g) {
      max[g] = gather_group(row, norm, first + g * group, group, count - g * group, y + g * group);
    }
    // The last 128 may end before their y does: what follows is quantised too, but not stored.
    for (int64_t j = groups * group; j < (count + 127) / 128 * 128; ++j) y[j] = 0;
    const __m256 limit = _mm256_set1_ps(static_cast<float>(act.needs.limit()));
    for (int64_t g = 0; g < most_groups; g += 8) {
      const __m256 size = _mm256_load_ps(max + g);
      if (g < groups) vec::store(act.scales + first / group + g, groups - g, _mm256_div_ps(size, limit));
      const __m256 nothing = _mm256_cmp_ps(size, _mm256_setzero_ps(), _CMP_EQ_OQ);
      _mm256_store_ps(inverse + g, _mm256_andnot_ps(nothing, _mm256_div_ps(limit, size)));
    }
    for (int64_t j = 0; j < count; j += 128) {
      quantize_128(act, y + j, inverse + j / group, first + j, std::min<int64_t>(128, count - j));
    }
  }
}

template <class T>
void quantize_rows(const NormState* state, const KernelArgs& args, const ActNeeds& needs) {
  const RowView view = row_view(args.in[0]);
  const ActRegions regions = act_regions(needs, view.rows, view.columns);
  const Part part = split_rows(args.worker, view.rows, view.columns);
  for (int64_t r = part.row_begin; r < part.row_end; ++r) {
    const ActRow<T> act{reinterpret_cast<T*>(args.out.data) + r * regions.k_padded,
                        reinterpret_cast<float*>(args.out.data + regions.scales_offset) + r * regions.scales_per_row,
                        reinterpret_cast<int32_t*>(args.out.data + regions.sums_offset) + r * regions.sums_per_row,
                        needs};
    const Normed row = state ? normed(*state, args, r)
                             : Normed{args.in[0].as<float>() + r * view.stride, nullptr, nullptr, 0, 0};
    quantize_row(act, row, state != nullptr, view.columns);
  }
}

/// state null: quantize without a norm.
void run_quantize(const void* opaque, const KernelArgs& args) {
  const auto* state = static_cast<const NormState*>(opaque);
  const ActNeeds needs = act_needs_of(*args.out.desc.format);
  if (needs.bits == 16) {
    quantize_rows<int16_t>(state, args, needs);
  } else {
    quantize_rows<int8_t>(state, args, needs);
  }
}

NIBBLE_AVX2_END

const char* rejects(const Call& call) { return rejects_uneven(call, call.in.size()); }
float cost(const Call& call) { return row_cost(call); }

Bound bind(const Call& call, ops::Norm norm, void (*run)(const void*, const KernelArgs&), const char* detail) {
  auto state = std::make_shared<NormState>(NormState{norm, static_cast<float>(call.attrs().f("eps"))});
  return {run, std::move(state), 0, detail};
}

}  // namespace

void register_norms() {
  register_kernel({"rms_norm_avx2", "rms_norm", Isa::avx2, rejects, cost,
                   [](const Call& call) { return bind(call, ops::Norm::rms, run_norm, "16 lanes"); }});
  register_kernel({"layer_norm_avx2", "layer_norm", Isa::avx2, rejects, cost,
                   [](const Call& call) { return bind(call, ops::Norm::layer, run_norm, "16 lanes"); }});
  register_kernel({"quantize_avx2", "quantize", Isa::avx2, rejects, cost,
                   [](const Call&) { return Bound{run_quantize, nullptr, 0, "groups of 32 to 128"}; }});
  register_kernel({"norm_quantize_avx2", "norm_quantize", Isa::avx2, rejects, cost, [](const Call& call) {
                     return bind(call, ops::parse_norm(call.attrs().s("norm", "rms_norm")), run_quantize,
                                 "16 lanes, groups of 32 to 128");
                   }});
}

}  // namespace nibble::jit
