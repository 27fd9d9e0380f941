// SPDX-License-Identifier: Apache-2.0
// choose_experts and expert_weights with the rows divided among workers, group_experts, combine_experts and
// clamped_swiglu of f32 rows.
#include <algorithm>

#include "jit/experts.h"
#include "jit/row_split.h"
#include "tensor/ops/experts.h"

#include "jit/vector_math.h"

namespace nibble::jit {

namespace {

// Work per element is a hundred times that of an addition.
Part split_routing(const KernelArgs& args) {
  return split_rows(args.worker, args.in[0].dim(0), args.in[0].dim(1) * 64);
}

void run_choose(const void*, const KernelArgs& args) {
  const Part part = split_routing(args);
  auto* scratch =
      reinterpret_cast<float*>(args.scratch) + args.worker.index * ops::choose_experts_scratch(args.in[0].desc);
  ops::choose_experts_rows(args, part.row_begin, part.row_end, scratch);
}

Bound bind_choose(const Call& call) {
  const auto floats = static_cast<size_t>(ops::choose_experts_scratch(call.in[0]) * call.threads);
  return {run_choose, nullptr, floats * sizeof(float), "f32"};
}

void run_weights(const void*, const KernelArgs& args) {
  const Part part = split_routing(args);
  ops::expert_weights_rows(args, part.row_begin, part.row_end);
}

// A counting sort by one worker: the others would wait longer for each other than it takes.
void run_group(const void*, const KernelArgs& args) {
  if (args.worker.index != 0) return;
  const auto* chosen = args.in[0].as<const int32_t>();
  const auto experts = static_cast<int32_t>(args.attrs->i("experts"));
  const auto pairs = static_cast<int32_t>(args.in[0].desc.shape.elements());
  auto* begins = args.out.as<int32_t>();
  int32_t *pair = begins + experts + 1, *row = pair + pairs;
  const auto expert = [&](int32_t p) { return std::clamp(chosen[p], 0, experts - 1); };
  std::fill_n(begins, experts + 1, 0);
  for (int32_t p = 0; p < pairs; ++p) ++begins[expert(p) + 1];
  for (int32_t e = 0; e < experts; ++e) begins[e + 1] += begins[e];
  // begins[e] walks from the begin of e to its end, then all move back
  for (int32_t p = 0; p < pairs; ++p) {
    row[p] = begins[expert(p)]++;
    pair[row[p]] = p;
  }
  for (int32_t e = experts; e > 0; --e) begins[e] = begins[e - 1];
  begins[0] = 0;
}

NIBBLE_AVX2_BEGIN

void run_combine(const void*, const KernelArgs& args) {
  const Tensor &y = args.in[0], &weights = args.in[2], &out = args.out;
  const int64_t count = weights.dim(1), pairs = weights.desc.shape.elements();
  const ops::ExpertGroups groups = ops::expert_groups(args.in[1], args.in[1].dim(0) - 1 - 2 * pairs);
  const Part part = split_elements(args.worker, out.dim(0), out.dim(1));
  for (int64_t i = part.row_begin; i < part.row_end; ++i) {
    float* to = out.as<float>() + i * out.strides[0];
    for (int64_t j = part.column_begin; j < part.column_end; j += 8) {
      const int64_t left = part.column_end - j;
      __m256 total = _mm256_setzero_ps();
      for (int64_t c = 0; c < count; ++c) {
        const __m256 weight =
            _mm256_broadcast_ss(weights.as<const float>() + i * weights.strides[0] + c * weights.strides[1]);
        const float* from = y.as<const float>() + groups.row[i * count + c] * y.strides[0] + j;
        total = _mm256_fmadd_ps(vec::load(from, left), weight, total);
      }
      vec::store(to + j, left, total);
    }
  }
}

struct SwigluState {
  float limit, alpha;
};

// g sigmoid(alpha g) = silu(alpha g) / alpha
void run_swiglu(const void* opaque, const KernelArgs& args) {
  const auto& state = *static_cast<const SwigluState*>(opaque);
  const RowView gate = row_view(args.in[0]), up = row_view(args.in[1]), out = row_view(args.out);
  const Part part = split_elements(args.worker, out.rows, out.columns);
  const __m256 limit = _mm256_set1_ps(state.limit), low = _mm256_set1_ps(-state.limit), one = _mm256_set1_ps(1);
  const __m256 alpha = _mm256_set1_ps(state.alpha), inverse = _mm256_set1_ps(1 / state.alpha);
  for (int64_t r = part.row_begin; r < part.row_end; ++r) {
    for (int64_t j = part.column_begin; j < part.column_end; j += 8) {
      const int64_t left = part.column_end - j;
      const __m256 g = _mm256_min_ps(vec::load(args.in[0].as<float>() + r * gate.stride + j, left), limit);
      const __m256 u =
          _mm256_max_ps(low, _mm256_min_ps(vec::load(args.in[1].as<float>() + r * up.stride + j, left), limit));
      const __m256 act = _mm256_mul_ps(vec::silu(_mm256_mul_ps(g, alpha)), inverse);
      vec::store(args.out.as<float>() + r * out.stride + j, left, _mm256_mul_ps(act, _mm256_add_ps(u, one)));
    }
  }
}

NIBBLE_AVX2_END

const char* rejects_choose(const Call&) { return nullptr; }
const char* rejects_group(const Call& call) {
  return call.strides[0] == contiguous_strides(call.in[0].shape) ? nullptr : "the choice must be contiguous";
}
const char* rejects_combine(const Call& call) {
  if (call.strides[0][1] != 1) return "y must have columns side by side";
  return call.strides[1] == Shape{1} ? nullptr : "groups must be contiguous";
}
const char* rejects_swiglu(const Call& call) { return rejects_uneven(call, 2); }
float cost(const Call& call) { return row_cost(call); }

Bound bind_swiglu(const Call& call) {
  auto state = std::make_shared<SwigluState>(
      SwigluState{static_cast<float>(call.attrs().f("limit")), static_cast<float>(call.attrs().f("alpha"))});
  return {run_swiglu, std::move(state), 0, "f32"};
}

}  // namespace

void register_routing() {
  register_kernel({"choose_experts_avx2", "choose_experts", Isa::avx2, rejects_choose, cost, bind_choose});
  register_kernel({"expert_weights_avx2", "expert_weights", Isa::avx2, rejects_choose, cost,
                   [](const Call&) { return Bound{run_weights, nullptr, 0, "f32"}; }});
  register_kernel({"group_experts_avx2", "group_experts", Isa::avx2, rejects_group, cost,
                   [](const Call&) { return Bound{run_group, nullptr, 0, "i32"}; }});
  register_kernel({"combine_experts_avx2", "combine_experts", Isa::avx2, rejects_combine, cost,
                   [](const Call&) { return Bound{run_combine, nullptr, 0, "f32"}; }});
  register_kernel({"clamped_swiglu_avx2", "clamped_swiglu", Isa::avx2, rejects_swiglu, cost, bind_swiglu});
}

}  // namespace nibble::jit
