// SPDX-License-Identifier: Apache-2.0
// Float matmuls (m, n, k) and the ops between matmuls (rows, columns), one thread. Matmuls report GFLOP/s, their share
// of the FMA peak and GB/s of weights; the others GB/s of what they read and write. The baseline is oneDNN's matmul.
#include <benchmark/benchmark.h>

#include "bench/support/float_bench.h"
#include "jit/jit.h"
#include "tensor/onednn/onednn.h"
#include "tensor/op.h"
#include "tensor/packed.h"
#include "tensor/plan.h"

namespace nibble {

namespace {

void run(benchmark::State& state, const std::string& op, const bench::Inputs& in, const TensorDesc& desc,
         const Attrs& attrs, size_t weights = 0) {
  Buffer y(bytes(desc));
  const Tensor out(desc, y.data());
  ThreadPool pool(1);
  test::KernelRunner runner(op, bench::best_kernel(op), in.all, desc, attrs, 1, 1, 1 + weights);
  for (auto _ : state) runner.run_again(pool, in.all, out);
  double moved = static_cast<double>(bytes(desc));
  for (const Tensor& t : in.all) moved += static_cast<double>(bytes(t.desc));
  state.counters["bytes"] = benchmark::Counter(moved * static_cast<double>(state.iterations()),
                                               benchmark::Counter::kIsRate, benchmark::Counter::kIs1024);
}

void report_flops(benchmark::State& state) {
  const double flops = 2 * static_cast<double>(state.range(0) * state.range(1) * state.range(2)) *
                       static_cast<double>(state.iterations());
  state.counters["flops"] = benchmark::Counter(flops, benchmark::Counter::kIsRate);
  state.counters["of_peak"] = benchmark::Counter(flops / bench::fma_peak(), benchmark::Counter::kIsRate);
}

void matmul(benchmark::State& state, const std::string& format) {
  jit::register_kernels();
  const int64_t m = state.range(0), n = state.range(1), k = state.range(2);
  bench::Inputs in;
  in.floats(Shape{m, k});
  in.packed(format, n, k);
  run(state, "matmul", in, {Shape{m, n}, DType::f32}, {}, 1);
  report_flops(state);
}

/// The same product of dense rows by oneDNN, the baseline: a plan takes it when sums may depend on the number of rows.
void matmul_onednn(benchmark::State& state) {
  jit::register_kernels();
  register_onednn_kernels();
  const Shape rows{state.range(0), state.range(2)}, columns{state.range(1), state.range(2)};
  bench::Inputs in;
  const Tensor x = in.floats(rows), w = in.floats(columns);
  Graph graph;
  graph.output(graph.add(op("matmul"), {graph.input("x", x.desc), graph.constant("w", w)}));
  Plan plan = Plan::compile(graph, {.threads = 1, .fixed_sum_order = false});
  const std::string kernel(plan.steps().at(0).kernel);
  state.SetLabel(kernel);
  if (!kernel.starts_with("matmul_onednn")) return state.SkipWithError("the plan did not choose oneDNN");
  const TensorDesc desc{Shape{rows[0], columns[0]}, DType::f32};
  Buffer y(bytes(desc));
  const Tensor out(desc, y.data());
  ThreadPool pool(1);
  for (auto _ : state) plan.run(pool, {&x, 1}, {&out, 1});
  report_flops(state);
}

void rows(benchmark::State& state, const std::string& op, bool quantizes, int vectors, const Attrs& attrs) {
  jit::register_kernels();
  const int64_t m = state.range(0), n = state.range(1);
  bench::Inputs in;
  in.floats(Shape{m, n});
  if (op == "add" || op == "mul") in.floats(Shape{m, n});
  for (int i = 0; i < vectors; ++i) in.floats(Shape{n});
  TensorDesc out{Shape{m, n}, DType::f32};
  if (quantizes) out = {Shape{m, n}, DType::packed, &act_format({32, 8})};
  run(state, op, in, out, attrs);
}

void rope(benchmark::State& state) {
  jit::register_kernels();
  bench::Inputs in;
  in.floats(Shape{state.range(0), state.range(1)});
  in.floats(Shape{state.range(0), 128});
  run(state, "rope", in, in.all[0].desc, {{"head_dim", int64_t{128}}});
}

const Attrs norm{{"eps", 1e-5}, {"norm", "rms_norm"}, {"group", int64_t{32}}, {"offset", int64_t{8}}};

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"m", "n", "k"})->ArgsProduct({{1, 4, 32, 512}, {4096}, {4096}});
}
void sizes(benchmark::internal::Benchmark* b) { b->ArgNames({"rows", "columns"})->ArgsProduct({{1, 512}, {4096}}); }

BENCHMARK_CAPTURE(matmul, f16, "f16")->Apply(shapes);
BENCHMARK_CAPTURE(matmul, bf16, "bf16")->Apply(shapes);
BENCHMARK_CAPTURE(matmul, f32, "f32")->Apply(shapes);
BENCHMARK(matmul_onednn)->Apply(shapes);
BENCHMARK_CAPTURE(rows, norm_quantize, "norm_quantize", true, 1, norm)->Apply(sizes);
BENCHMARK_CAPTURE(rows, quantize, "quantize", true, 0, norm)->Apply(sizes);
BENCHMARK_CAPTURE(rows, rms_norm, "rms_norm", false, 1, norm)->Apply(sizes);
BENCHMARK_CAPTURE(rows, layer_norm, "layer_norm", false, 2, norm)->Apply(sizes);
BENCHMARK_CAPTURE(rows, add, "add", false, 0, Attrs{})->Apply(sizes);
BENCHMARK_CAPTURE(rows, silu, "silu", false, 0, Attrs{})->Apply(sizes);
BENCHMARK_CAPTURE(rows, gelu, "gelu", false, 0, Attrs{})->Apply(sizes);
BENCHMARK_CAPTURE(rows, softmax, "softmax", false, 0, Attrs{})->Apply(sizes);
BENCHMARK(rope)->Apply(sizes);

}  // namespace

}  // namespace nibble

BENCHMARK_MAIN();
