// SPDX-License-Identifier: Apache-2.0
// add, mul, silu, gelu, gelu_tanh, relu, tanh, clamp, softmax of f32 rows.
#include <limits>

#include "jit/float_kernels.h"
#include "jit/row_split.h"

#include "jit/vector_math.h"

namespace nibble::jit {

namespace {

NIBBLE_AVX2_BEGIN

using Unary = __m256 (*)(__m256);
using Binary = __m256 (*)(__m256, __m256);

inline __m256 sum_of(__m256 a, __m256 b) { return _mm256_add_ps(a, b); }
inline __m256 product_of(__m256 a, __m256 b) { return _mm256_mul_ps(a, b); }

template <class Function>
void map(const KernelArgs& args, Function f) {
  const RowView x = row_view(args.in[0]), y = row_view(args.out);
  const Part part = split_elements(args.worker, x.rows, x.columns);
  for (int64_t r = part.row_begin; r < part.row_end; ++r) {
    const float* from = args.in[0].as<float>() + r * x.stride;
    float* to = args.out.as<float>() + r * y.stride;
    for (int64_t j = part.column_begin; j < part.column_end; j += 8) {
      const int64_t count = part.column_end - j;
      vec::store(to + j, count, f(vec::load(from + j, count)));
    }
  }
}

template <Unary f>
void run_unary(const void*, const KernelArgs& args) {
  map(args, f);
}

struct ClampState {
  float limit;
};

struct Clamp {
  __m256 limit;
  // a NaN in the second operand of min and max is kept
  __m256 operator()(__m256 x) const {
    return _mm256_min_ps(limit, _mm256_max_ps(_mm256_sub_ps(_mm256_setzero_ps(), limit), x));
  }
};

void run_clamp(const void* opaque, const KernelArgs& args) {
  map(args, Clamp{_mm256_set1_ps(static_cast<const ClampState*>(opaque)->limit)});
}

template <Binary f>
void run_binary(const void*, const KernelArgs& args) {
  const RowView a = row_view(args.in[0]), b = row_view(args.in[1]), y = row_view(args.out);
  const bool scalar = args.in[1].desc.shape.rank() == 0;
  const Part part = split_elements(args.worker, a.rows, a.columns);
  for (int64_t r = part.row_begin; r < part.row_end; ++r) {
    const float* left = args.in[0].as<float>() + r * a.stride;
    const float* right = args.in[1].as<float>() + r % b.rows * b.stride;
    float* to = args.out.as<float>() + r * y.stride;
    for (int64_t j = part.column_begin; j < part.column_end; j += 8) {
      const int64_t count = part.column_end - j;
      const __m256 other = scalar ? _mm256_broadcast_ss(right) : vec::load(right + j, count);
      vec::store(to + j, count, f(vec::load(left + j, count), other));
    }
  }
}

struct SoftmaxState {
  float scale;
};

/// scale * x, -infinity outside the mask.
inline __m256 scaled(const float* x, int64_t left, __m256 scale) {
  if (left >= 8) return _mm256_mul_ps(_mm256_loadu_ps(x), scale);
  const __m256i mask = vec::first_lanes(left);
  const __m256 v = _mm256_mul_ps(_mm256_maskload_ps(x, mask), scale);
  return _mm256_blendv_ps(_mm256_set1_ps(-std::numeric_limits<float>::infinity()), v, _mm256_castsi256_ps(mask));
}

void softmax_row(const float* x, float* y, int64_t n, float factor) {
  const __m256 scale = _mm256_set1_ps(factor);
  __m256 most = _mm256_set1_ps(-std::numeric_limits<float>::infinity()), sum = _mm256_setzero_ps();
  for (int64_t j = 0; j < n; j += 8) most = _mm256_max_ps(most, scaled(x + j, n - j, scale));
  const __m256 max = _mm256_set1_ps(vec::max(most));
  for (int64_t j = 0; j < n; j += 8) {
    const __m256 e = vec::exp(_mm256_sub_ps(scaled(x + j, n - j, scale), max));
    // A row of -infinity has no maximum to subtract: its padding is NaN too, but so is the row.
    sum = _mm256_add_ps(sum, e);
    vec::store(y + j, n - j, e);
  }
  const __m256 total = _mm256_set1_ps(vec::sum(sum));
  for (int64_t j = 0; j < n; j += 8) vec::store(y + j, n - j, _mm256_div_ps(vec::load(y + j, n - j), total));
}

void run_softmax(const void* opaque, const KernelArgs& args) {
  const RowView x = row_view(args.in[0]), y = row_view(args.out);
  const Part part = split_rows(args.worker, x.rows, x.columns);
  for (int64_t r = part.row_begin; r < part.row_end; ++r) {
    softmax_row(args.in[0].as<float>() + r * x.stride, args.out.as<float>() + r * y.stride, x.columns,
                static_cast<const SoftmaxState*>(opaque)->scale);
  }
}

NIBBLE_AVX2_END

const char* rejects(const Call& call) { return rejects_uneven(call, 2); }
float cost(const Call& call) { return row_cost(call); }

template <void (*run)(const void*, const KernelArgs&)>
Bound bind(const Call&) {
  return {run, nullptr, 0, "f32"};
}

Bound bind_softmax(const Call& call) {
  auto state = std::make_shared<SoftmaxState>(SoftmaxState{static_cast<float>(call.attrs().f("scale", 1))});
  return {run_softmax, std::move(state), 0, "f32"};
}

Bound bind_clamp(const Call& call) {
  auto state = std::make_shared<ClampState>(ClampState{static_cast<float>(call.attrs().f("limit"))});
  return {run_clamp, std::move(state), 0, "f32"};
}

}  // namespace

void register_elementwise() {
  register_kernel({"add_avx2", "add", Isa::avx2, rejects, cost, bind<run_binary<sum_of>>});
  register_kernel({"mul_avx2", "mul", Isa::avx2, rejects, cost, bind<run_binary<product_of>>});
  register_kernel({"silu_avx2", "silu", Isa::avx2, rejects, cost, bind<run_unary<vec::silu>>});
  register_kernel({"gelu_avx2", "gelu", Isa::avx2, rejects, cost, bind<run_unary<vec::gelu>>});
  register_kernel({"gelu_tanh_avx2", "gelu_tanh", Isa::avx2, rejects, cost, bind<run_unary<vec::gelu_tanh>>});
  register_kernel({"relu_avx2", "relu", Isa::avx2, rejects, cost, bind<run_unary<vec::relu>>});
  register_kernel({"tanh_avx2", "tanh", Isa::avx2, rejects, cost, bind<run_unary<vec::tanh>>});
  register_kernel({"clamp_avx2", "clamp", Isa::avx2, rejects, cost, bind_clamp});
  register_kernel({"softmax_avx2", "softmax", Isa::avx2, rejects, cost, bind_softmax});
}

}  // namespace nibble::jit
