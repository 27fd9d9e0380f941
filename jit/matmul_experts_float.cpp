// SPDX-License-Identifier: Apache-2.0
// op `matmul_experts` with float weights (tensor/panel.h: float_weights). Workers take chunks of panels of one expert,
// which go over all its rows, gathered in blocks that stay in L2 with their part of k. The sum of one element is one
// chain of fma over k, as in jit/matmul_float.cpp, so nothing here can change a bit.
#include <algorithm>
#include <memory>
#include <vector>

#include "jit/experts.h"
#include "jit/float_panels.h"
#include "tensor/check.h"
#include "tensor/kernel.h"
#include "tensor/ops/experts.h"
#include "tensor/panel.h"

#include "jit/vector_math.h"

namespace nibble::jit {

namespace {

// A block of gathered rows fills 192 KiB of L2; the padding, in floats, keeps them out of each other's cache sets.
constexpr int64_t block_rows = 96, block_depth = 512, row_padding = 16;
constexpr int64_t chunk_panels = 4;
using Block = FloatPanels::Block;

struct State {
  ops::ExpertsCall call;
  std::vector<FloatPanels> weights;
  int64_t panels = 0, rows_per_block = 0, depth_per_block = 0;
  size_t expanded_bytes = 0, gathered_bytes = 0, totals_bytes = 0, worker_bytes = 0;

  int64_t chunks() const { return (panels + chunk_panels - 1) / chunk_panels; }
};

/// One chunk of one expert.
struct Job {
  const State& state;
  const KernelArgs& args;
  const ops::ExpertGroups& groups;
  int64_t expert, panel, count;
  std::byte* scratch;

  float* gathered() const { return reinterpret_cast<float*>(scratch + state.expanded_bytes); }
  float* totals(size_t weight) const {
    return reinterpret_cast<float*>(scratch + state.expanded_bytes + state.gathered_bytes +
                                    weight * state.totals_bytes);
  }
  void block(int64_t row, int64_t rows) const;
  void multiply(size_t weight, int64_t rows, int64_t k, int64_t depth) const;
  void finish(int64_t row, int64_t rows) const;
};

void Job::multiply(size_t weight, int64_t rows, int64_t k, int64_t depth) const {
  const Block block{.a = gathered(),
                    .a_stride = (state.depth_per_block + row_padding) * 4,
                    .rows = rows,
                    .panel = expert * state.panels + panel,
                    .panels = count,
                    .k = k,
                    .depth = depth,
                    .c = totals(weight),
                    .c_stride = chunk_panels * panel_columns * 4};
  state.weights[weight].multiply(args.in[1 + weight].data, block, scratch);
}

void Job::block(int64_t row, int64_t rows) const {
  const Tensor& x = args.in[0];
  const int64_t stride = state.depth_per_block + row_padding;
  for (int64_t k = 0; k < state.call.k; k += state.depth_per_block) {
    const int64_t depth = std::min(state.depth_per_block, state.call.k - k);
    for (int64_t r = 0; r < rows; ++r) {
      std::copy_n(x.as<const float>() + state.call.source(groups, row + r) * x.strides[0] + k, depth,
                  gathered() + r * stride);
    }
    for (size_t w = 0; w < state.weights.size(); ++w) multiply(w, rows, k, depth);
  }
  finish(row, rows);
}

NIBBLE_AVX2_BEGIN

__m256 activate(ops::Activation activation, __m256 x) {
  switch (activation) {
    case ops::Activation::none: return x;
    case ops::Activation::silu: return vec::silu(x);
    case ops::Activation::gelu: return vec::gelu(x);
    case ops::Activation::gelu_tanh: return vec::gelu_tanh(x);
    case ops::Activation::relu: return vec::relu(x);
  }
  return x;
}

void Job::finish(int64_t row, int64_t rows) const {
  const int64_t column = panel * panel_columns, columns = std::min(count * panel_columns, state.call.n - column);
  const Tensor* bias = state.call.bias ? &args.in[static_cast<size_t>(state.call.bias)] : nullptr;
  for (int64_t r = 0; r < rows; ++r) {
    float* out = args.out.as<float>() + (row + r) * args.out.strides[0] + column;
    const int64_t from = r * chunk_panels * panel_columns;
    for (int64_t j = 0; j < columns; j += 8) {
      __m256 y = _mm256_loadu_ps(totals(0) + from + j);
      if (state.weights.size() == 2)
        y = _mm256_mul_ps(activate(state.call.gate, y), _mm256_loadu_ps(totals(1) + from + j));
      if (bias)
        y = _mm256_add_ps(y, vec::load(bias->as<const float>() + expert * bias->strides[0] + column + j, columns - j));
      vec::store(out + j, columns - j, y);
    }
  }
}

NIBBLE_AVX2_END

void run(const void* opaque, const KernelArgs& args) {
  const State& state = *static_cast<const State*>(opaque);
  const ops::ExpertGroups groups =
      ops::expert_groups(args.in[static_cast<size_t>(state.call.groups)], state.call.experts);
  std::byte* scratch = args.scratch + static_cast<size_t>(args.worker.index) * state.worker_bytes;
  int64_t expert = 0, before = 0;  // chunks of the experts before it
  const auto chunks = [&] { return groups.rows(expert) > 0 ? state.chunks() : 0; };
  while (true) {
    const int64_t ticket = args.counters[0].fetch_add(1, std::memory_order_relaxed);
    for (; expert < state.call.experts && ticket >= before + chunks(); ++expert) before += chunks();
    if (expert == state.call.experts) return;
    const int64_t panel = (ticket - before) * chunk_panels;
    const Job job{state, args, groups, expert, panel, std::min(chunk_panels, state.panels - panel), scratch};
    for (int64_t row = groups.begins[expert]; row < groups.begins[expert + 1]; row += state.rows_per_block) {
      job.block(row, std::min<int64_t>(state.rows_per_block, groups.begins[expert + 1] - row));
    }
  }
}

const char* rejects(const Call& call) {
  const ops::ExpertsCall experts = ops::experts_call(call.in, call.attrs());
  if (call.in[0].dtype != DType::f32 || call.strides[0][1] != 1) return "x must be f32 with columns side by side";
  for (size_t w = 1; w <= static_cast<size_t>(experts.weights); ++w) {
    if (!float_weights(call.in[w].format->layout)) return "weights must be packed floats";
  }
  if (!(call.strides[static_cast<size_t>(experts.groups)] == Shape{1})) return "groups must be contiguous";
  if (experts.bias && call.strides[static_cast<size_t>(experts.bias)][1] != 1)
    return "the bias must be contiguous along columns";
  return nullptr;
}

float cost(const Call& call, double flops_per_ns) {
  const ops::ExpertsCall experts = ops::experts_call(call.in, call.attrs());
  const auto products = static_cast<double>(experts.rows * experts.n * experts.k * experts.weights);
  return static_cast<float>(2 * products / flops_per_ns / call.threads + 500);
}

template <Isa isa>
Bound bind(const Call& call) {
  auto state = std::make_shared<State>();
  state->call = ops::experts_call(call.in, call.attrs());
  for (size_t w = 1; w <= static_cast<size_t>(state->call.weights); ++w) {
    state->weights.emplace_back(isa, call.in[w].format->layout, state->call.n, state->call.k);
    state->panels = state->weights.back().geometry().panels;
    state->expanded_bytes = std::max(state->expanded_bytes, state->weights.back().scratch_bytes());
  }
  state->rows_per_block = std::clamp<int64_t>(state->call.tokens(), 1, block_rows);
  state->depth_per_block = std::clamp<int64_t>(state->call.k, 1, block_depth);
  const auto align = [](int64_t floats) { return static_cast<size_t>((floats + 15) / 16 * 64); };
  state->gathered_bytes = align(state->rows_per_block * (state->depth_per_block + row_padding));
  state->totals_bytes = align(state->rows_per_block * chunk_panels * panel_columns);
  state->worker_bytes = state->expanded_bytes + state->gathered_bytes + state->totals_bytes * state->weights.size();
  Bound bound;
  bound.run = run;
  bound.scratch_bytes = state->worker_bytes * static_cast<size_t>(call.threads);
  bound.detail = state->weights[0].detail(state->call.tokens());
  bound.state = std::move(state);
  return bound;
}

}  // namespace

void register_matmul_experts_float() {
  register_kernel({.name = "matmul_experts_float_avx2", .op = "matmul_experts", .isa = Isa::avx2, .rejects = rejects,
                   .cost = [](const Call& call) { return cost(call, 70); }, .bind = bind<Isa::avx2>});
  register_kernel({.name = "matmul_experts_float_avx512",
                   .op = "matmul_experts",
                   .isa = Isa::avx512vnni,
                   .rejects = rejects,
                   .cost = [](const Call& call) { return cost(call, 120); },
                   .bind = bind<Isa::avx512vnni>});
}

}  // namespace nibble::jit
