// SPDX-License-Identifier: Apache-2.0
// op `matmul` with float weights (tensor/panel.h: float_weights). Workers take a chunk of panels and a block of rows at
// a time and read the rows where they are. The sum of one element is one chain of fma over k whatever the blocks, so
// nothing here can change a bit.
#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "jit/float_kernels.h"
#include "jit/float_panels.h"
#include "tensor/check.h"
#include "tensor/kernel.h"
#include "tensor/ops/matmul.h"
#include "tensor/panel.h"

#include "jit/vector_math.h"

namespace nibble::jit {

namespace {

// Copying rows into padded blocks that stay in L2 took 5 to 9 % of a prompt's time and gained less, even at strides of
// 32 KB (Zen 3). Expanded weights want blocks that are high, and a depth that stays in L2 for all panels of a chunk.
constexpr int64_t block_rows = 192, expanded_depth = 256;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Weight {
  FloatPanels panels;
  size_t input = 0;       ///< of the call
  int64_t n = 0, column = 0;  ///< columns, the first one in the joined result
};
struct Chunk {
  size_t weight;
  int64_t panel, panels;
};
struct State {
  ops::MatmulCall call;
  std::vector<Weight> weights;
  std::vector<Chunk> chunks;
  int64_t m = 0, k = 0, chunk_panels = 0;
  int64_t rows_per_block = 0, depth_per_block = 0;
  size_t expanded_bytes = 0, worker_bytes = 0;
  bool gated() const { return call.gate != ops::Activation::none; }
  int64_t chunk_columns() const { return chunk_panels * panel_columns; }
};

/// Rows of one block against one chunk: sums (rows, chunk_columns).
void multiply(const State& state, const KernelArgs& args, const Weight& weight, const Chunk& chunk, const float* a,
              int64_t a_stride, int64_t rows, int64_t k_begin, int64_t k_count, float* sums, std::byte* scratch) {
  weight.panels.multiply(args.in[weight.input].data,
                         {.a = a,
                          .a_stride = a_stride,
                          .rows = rows,
                          .panel = chunk.panel,
                          .panels = chunk.panels,
                          .k = k_begin,
                          .depth = k_count,
                          .c = sums,
                          .c_stride = state.chunk_columns() * 4},
                         scratch);
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

__m256 biased(const State& state, const KernelArgs& args, __m256 x, int64_t column, int64_t left) {
  if (state.call.bias == 0) return x;
  return _mm256_add_ps(x, vec::load(args.in[state.call.bias].as<float>() + column, left));
}

/// Bias, activation or gate, residual, store; `gated` are the sums of the gate's second weight.
void finish(const State& state, const KernelArgs& args, const Chunk& chunk, int64_t row, int64_t rows,
            const float* sums, const float* gated) {
  const Weight& weight = state.weights[chunk.weight];
  const int64_t begin = chunk.panel * panel_columns, count = std::min(chunk.panels * panel_columns, weight.n - begin);
  const int64_t column = weight.column + begin;
  for (int64_t r = 0; r < rows; ++r) {
    float* out = args.out.as<float>() + (row + r) * args.out.strides[0] + column;
    for (int64_t j = 0; j < count; j += 8) {
      const int64_t left = count - j;
      __m256 y = biased(state, args, _mm256_loadu_ps(sums + r * state.chunk_columns() + j), column + j, left);
      if (state.gated()) {
        const __m256 up = _mm256_loadu_ps(gated + r * state.chunk_columns() + j);
        y = _mm256_mul_ps(activate(state.call.gate, y), biased(state, args, up, weight.n + column + j, left));
      } else {
        y = activate(state.call.activation, y);
      }
      if (state.call.residual != 0) {
        const Tensor& residual = args.in[state.call.residual];
        y = _mm256_add_ps(y, vec::load(residual.as<float>() + (row + r) * residual.strides[0] + column + j, left));
      }
      vec::store(out + j, left, y);
    }
  }
}

NIBBLE_AVX2_END

/// One chunk for the block of rows at `row`.
void run_block(const State& state, const KernelArgs& args, const Chunk& chunk, int64_t row, std::byte* scratch) {
  auto* sums = reinterpret_cast<float*>(scratch + state.expanded_bytes);
  float* gated = sums + state.rows_per_block * state.chunk_columns();
  const Tensor& x = args.in[0];
  const int64_t rows = std::min(state.rows_per_block, state.m - row), a_stride = x.strides[0] * 4;
  int64_t k = 0;
  do {
    const int64_t depth = std::min(state.depth_per_block, state.k - k);
    const float* a = x.as<float>() + row * x.strides[0] + k;
    multiply(state, args, state.weights[chunk.weight], chunk, a, a_stride, rows, k, depth, sums, scratch);
    if (state.gated()) multiply(state, args, state.weights[1], chunk, a, a_stride, rows, k, depth, gated, scratch);
    k += depth;
  } while (k < state.k);
  finish(state, args, chunk, row, rows, sums, gated);
}

/// The blocks of rows of a chunk follow each other, so that its weights are still in cache.
void run(const void* opaque, const KernelArgs& args) {
  const State& state = *static_cast<const State*>(opaque);
  if (state.m == 0) return;
  std::byte* scratch = args.scratch + static_cast<size_t>(args.worker.index) * state.worker_bytes;
  const int64_t blocks = ceil_div(state.m, state.rows_per_block);
  const int64_t jobs = blocks * static_cast<int64_t>(state.chunks.size());
  for (int64_t j; (j = args.counters[0].fetch_add(1, std::memory_order_relaxed)) < jobs;) {
    run_block(state, args, state.chunks[static_cast<size_t>(j / blocks)], j % blocks * state.rows_per_block, scratch);
  }
}

const char* rejects(const Call& call) {
  const ops::MatmulCall matmul = ops::matmul_call(call.in.size(), call.attrs());
  if (call.in[0].dtype != DType::f32 || call.strides[0][1] != 1) return "x must be f32 with columns side by side";
  for (int i = 1; i <= matmul.weights; ++i) {
    if (call.in[i].dtype != DType::packed || !float_weights(call.in[i].format->layout))
      return "weights must be packed floats";
  }
  if (matmul.bias != 0 && !(call.strides[matmul.bias] == Shape{1})) return "the bias must be contiguous";
  if (matmul.residual != 0 && (call.in[matmul.residual].dtype != DType::f32 || call.strides[matmul.residual][1] != 1)) {
    return "the residual must be f32 with columns side by side";
  }
  return nullptr;
}

double weight_bytes(const Call& call) {
  double bytes = 0;
  for (const TensorDesc& in : call.in) {
    if (in.dtype == DType::packed) bytes += static_cast<double>(nibble::bytes(in));
  }
  return bytes;
}

float cost(const Call& call, double flops_per_ns) {
  const ops::MatmulCall matmul = ops::matmul_call(call.in.size(), call.attrs());
  double flops = 0;
  for (int i = 1; i <= matmul.weights; ++i)
    flops += 2.0 * static_cast<double>(call.in[0].shape[0] * call.in[i].shape.elements());
  return static_cast<float>(std::max(flops / flops_per_ns, weight_bytes(call) / 10) / call.threads + 500);
}

void make_chunks(State& state, int threads) {
  int64_t panels = 0;
  const size_t count = state.gated() ? 1 : state.weights.size();
  for (size_t w = 0; w < count; ++w) panels += (state.weights[w].n + panel_columns - 1) / panel_columns;
  // Wide chunks share a packed block of A; four per worker even out. Narrow calls take the widest kernel's four panels.
  state.chunk_panels = std::clamp<int64_t>(panels / (4 * threads) / 4 * 4, 4, 8);
  for (size_t w = 0; w < count; ++w) {
    const int64_t weight_panels = (state.weights[w].n + panel_columns - 1) / panel_columns;
    for (int64_t p = 0; p < weight_panels; p += state.chunk_panels) {
      state.chunks.push_back({w, p, std::min(state.chunk_panels, weight_panels - p)});
    }
  }
}

template <Isa isa>
Bound bind(const Call& call) {
  auto state = std::make_shared<State>();
  state->call = ops::matmul_call(call.in.size(), call.attrs());
  state->m = call.in[0].shape[0];
  state->k = call.in[0].shape[1];
  int64_t column = 0;
  for (size_t i = 1; i <= static_cast<size_t>(state->call.weights); ++i) {
    FloatPanels panels(isa, call.in[i].format->layout, call.in[i].shape[0], state->k);
    state->expanded_bytes = std::max(state->expanded_bytes, panels.scratch_bytes());
    state->weights.push_back({std::move(panels), i, call.in[i].shape[0], column});
    column += call.in[i].shape[0];
  }
  state->rows_per_block = std::min(block_rows, state->m);
  const bool expanded = state->expanded_bytes > 0 && state->m > state->weights[0].panels.rows_per_tile();
  state->depth_per_block = expanded ? std::min(expanded_depth, state->k) : state->k;
  make_chunks(*state, call.threads);
  const auto align = [](int64_t floats) { return static_cast<size_t>((floats + 15) / 16 * 64); };
  const int64_t sums = state->rows_per_block * state->chunk_columns();
  state->worker_bytes = state->expanded_bytes + align((state->gated() ? 2 : 1) * sums);
  Bound bound;
  bound.run = run;
  bound.scratch_bytes = state->worker_bytes * static_cast<size_t>(call.threads);
  bound.detail = state->weights[0].panels.detail(state->m);
  bound.state = std::move(state);
  return bound;
}

}  // namespace

void register_matmul_float() {
  register_kernel({.name = "matmul_float_avx2", .op = "matmul", .isa = Isa::avx2, .rejects = rejects,
                   .cost = [](const Call& call) { return cost(call, 70); }, .bind = bind<Isa::avx2>});
  register_kernel({.name = "matmul_float_avx512", .op = "matmul", .isa = Isa::avx512vnni, .rejects = rejects,
                   .cost = [](const Call& call) { return cost(call, 120) * 0.95f; }, .bind = bind<Isa::avx512vnni>});
}

}  // namespace nibble::jit
