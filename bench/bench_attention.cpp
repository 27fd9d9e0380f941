// SPDX-License-Identifier: Apache-2.0
// Attention: rows new positions behind a context. Arguments rows, context, heads, kv_heads, head_dim, threads, and 8
// for i8 pages or 16 for f16. Reports GFLOP/s of visible positions, their share of the FMA peak of the threads, and
// GB/s of the pages read. A row of 1 walks through several caches, more than the last-level cache holds, as layers do.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "bench/support/float_bench.h"
#include "jit/jit.h"

namespace nibble {

namespace {

void attention(benchmark::State& state) {
  jit::register_kernels();
  const int64_t rows = state.range(0), context = state.range(1), heads = state.range(2), kv_heads = state.range(3),
                d = state.range(4);
  const int threads = static_cast<int>(state.range(5));
  const bool coded = state.range(6) == 8;
  const int64_t pages = (context + rows + 31) / 32;
  const int64_t page_bytes = kv_heads * 2 * (coded ? 32 * (d + 4) : 64 * d);
  const int64_t layers = rows > 1 ? 1 : std::max<int64_t>(1, (int64_t{192} << 20) / (pages * page_bytes));
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
  std::vector<std::vector<Tensor>> inputs;
  for (int64_t layer = 0; layer < layers; ++layer) {
    inputs.push_back({in.all.begin(), in.all.begin() + 6});
    const auto add = [&](const Shape& shape) {
      inputs.back().push_back(coded ? in.codes(shape) : in.f16(shape));
      in.all.pop_back();
    };
    add(Shape{pages, kv_heads, coded ? d + 4 : d, 32});
    add(coded ? Shape{pages, kv_heads, d + 4, 32} : Shape{pages, kv_heads, 32, d});
  }
  Buffer y(static_cast<size_t>(rows * heads * d) * 4);
  const Tensor out({Shape{rows, heads * d}, DType::f32}, y.data());
  const Attrs attrs{{"heads", heads}, {"kv_heads", kv_heads}, {"scale", 1 / std::sqrt(static_cast<double>(d))}};
  ThreadPool pool(threads);
  test::KernelRunner runner("attention", bench::best_kernel("attention"), inputs[0], out.desc, attrs, threads);
  size_t layer = 0;
  for (auto _ : state) runner.run_again(pool, inputs[layer++ % inputs.size()], out);
  const double runs = static_cast<double>(state.iterations());
  const double seen = static_cast<double>(rows) * (static_cast<double>(context) + static_cast<double>(rows + 1) / 2);
  const double flops = 4 * seen * static_cast<double>(heads * d) * runs;
  state.counters["flops"] = benchmark::Counter(flops, benchmark::Counter::kIsRate);
  state.counters["of_peak"] = benchmark::Counter(flops / (bench::fma_peak() * threads), benchmark::Counter::kIsRate);
  const double bytes = static_cast<double>(pages * page_bytes) * runs;
  state.counters["page_bytes"] = benchmark::Counter(bytes, benchmark::Counter::kIsRate);
}

BENCHMARK(attention)
    ->ArgNames({"rows", "context", "heads", "kv_heads", "d", "threads", "bits"})
    ->ArgsProduct({{512}, {0, 3584}, {32}, {8}, {64, 128}, {1}, {16, 8}})
    ->ArgsProduct({{512}, {4096, 16384, 32768}, {32}, {4}, {64}, {1}, {16, 8}})
    ->Args({512, 0, 14, 2, 64, 1, 16})
    ->Args({512, 0, 32, 32, 128, 1, 16})
    ->ArgsProduct({{1}, {4095, 32767}, {32}, {8}, {64, 128}, {1, 2}, {16, 8}})
    ->ArgsProduct({{1}, {4095}, {32}, {4, 32}, {64, 128}, {1, 2}, {16, 8}})
    ->Args({1, 4095, 14, 2, 64, 1, 16})
    ->UseRealTime();

}  // namespace

}  // namespace nibble

BENCHMARK_MAIN();
