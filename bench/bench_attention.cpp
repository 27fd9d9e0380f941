// SPDX-License-Identifier: Apache-2.0
// Attention: rows new positions behind a context. Arguments rows, context, heads, kv_heads, head_dim, threads. Reports
// GFLOP/s of visible positions, their share of the FMA peak of the threads, and GB/s of the pages read.
#include <benchmark/benchmark.h>

#include <cmath>

#include "bench/support/float_bench.h"
#include "jit/jit.h"

namespace nibble {

namespace {

void attention(benchmark::State& state) {
  jit::register_kernels();
  const int64_t rows = state.range(0), context = state.range(1), heads = state.range(2), kv_heads = state.range(3),
                d = state.range(4);
  const int threads = static_cast<int>(state.range(5));
  const int64_t pages = (context + rows + 31) / 32;
  bench::Inputs in;
  std::vector<int32_t> positions, table, sequence(static_cast<size_t>(rows), 0);
  for (int64_t i = 0; i < rows; ++i) positions.push_back(static_cast<int32_t>(context + i));
  for (int64_t i = 0; i < pages; ++i) table.push_back(static_cast<int32_t>(i));
  in.floats(Shape{rows, heads * d});
  in.floats(Shape{rows, kv_heads * d});
  in.floats(Shape{rows, kv_heads * d});
  in.ints(positions);
  in.ints(sequence);
  in.all.push_back([&] {
    Tensor t = in.ints(table);
    in.all.pop_back();
    t.desc.shape = Shape{1, pages};
    t.strides = Shape{pages, 1};
    return t;
  }());
  in.f16(Shape{pages, kv_heads, d, 32});
  in.f16(Shape{pages, kv_heads, 32, d});
  Buffer y(static_cast<size_t>(rows * heads * d) * 4);
  const Tensor out({Shape{rows, heads * d}, DType::f32}, y.data());
  const Attrs attrs{{"heads", heads}, {"kv_heads", kv_heads}, {"scale", 1 / std::sqrt(static_cast<double>(d))}};
  ThreadPool pool(threads);
  test::KernelRunner runner("attention", bench::best_kernel("attention"), in.all, out.desc, attrs, threads);
  for (auto _ : state) runner.run_again(pool, in.all, out);
  const double runs = static_cast<double>(state.iterations());
  const double seen = static_cast<double>(rows) * (static_cast<double>(context) + static_cast<double>(rows + 1) / 2);
  const double flops = 4 * seen * static_cast<double>(heads * d) * runs;
  state.counters["flops"] = benchmark::Counter(flops, benchmark::Counter::kIsRate);
  state.counters["of_peak"] = benchmark::Counter(flops / (bench::fma_peak() * threads), benchmark::Counter::kIsRate);
  const double bytes = 4 * static_cast<double>((context + rows) * kv_heads * d) * runs;
  state.counters["page_bytes"] = benchmark::Counter(bytes, benchmark::Counter::kIsRate, benchmark::Counter::kIs1024);
}

BENCHMARK(attention)
    ->ArgNames({"rows", "context", "heads", "kv_heads", "d", "threads"})
    ->ArgsProduct({{512}, {0, 3584}, {32}, {8}, {64, 128}, {1}})
    ->Args({512, 0, 14, 2, 64, 1})
    ->Args({512, 0, 32, 32, 128, 1})
    ->ArgsProduct({{1}, {4095, 32767}, {32}, {8}, {64, 128}, {1, 2}})
    ->Args({1, 4095, 32, 32, 128, 1})
    ->Args({1, 4095, 14, 2, 64, 1});

}  // namespace

}  // namespace nibble

BENCHMARK_MAIN();
