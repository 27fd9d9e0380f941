// SPDX-License-Identifier: Apache-2.0
// A Mixtral-shaped mixture (8 experts of 14336, two of them chosen, width 4096), routing included, against the dense
// layer with the same active weights (28672). Rows: kind / rows of x. --threads=N, --format=NAME. What each row chooses
// is random.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "bench/support/bench_main.h"
#include "jit/jit.h"
#include "quant/format.h"
#include "tensor/buffer.h"
#include "tensor/check.h"
#include "tensor/op.h"
#include "tensor/plan.h"

namespace {

using namespace nibble;

constexpr int64_t width = 4096, ffn = 14336, experts = 8, chosen = 2;

struct Options {
  int threads = default_threads();
  std::string format = "q4s_g32";
};

Value weight(Graph& graph, const QuantFormat& format, std::vector<Buffer>& memory, int64_t n, int64_t k) {
  const TensorDesc desc{{n, k}, DType::packed, &format};
  memory.emplace_back(bytes(desc));
  std::memset(memory.back().data(), 0x11, memory.back().size());
  return graph.constant("w", Tensor(desc, memory.back().data()));
}

Value mixture(Graph& graph, Value x, Value logits, const QuantFormat& format, std::vector<Buffer>& memory) {
  const Value choice = graph.add(op("choose_experts"), {logits}, {{"count", chosen}});
  const Value weights = graph.add(op("expert_weights"), {logits, choice}, {{"normalize", 1}});
  const Value groups = graph.add(op("group_experts"), {choice}, {{"experts", experts}});
  const Value gate = weight(graph, format, memory, experts * ffn, width),
              up = weight(graph, format, memory, experts * ffn, width);
  const Attrs sizes = {{"experts", experts}, {"chosen", chosen}, {"n", ffn}, {"gate", std::string("silu")}};
  const Value y = graph.add(op("matmul_experts"), {x, gate, up, groups}, sizes);
  const Value down = weight(graph, format, memory, experts * width, ffn);
  const Value z = graph.add(op("matmul_experts"), {y, down, groups},
                            {{"experts", experts}, {"chosen", chosen}, {"n", width}, {"grouped", 1}});
  return graph.add(op("combine_experts"), {z, groups, weights});
}

Value dense(Graph& graph, Value x, const QuantFormat& format, std::vector<Buffer>& memory) {
  const Value gate = weight(graph, format, memory, chosen * ffn, width),
              up = weight(graph, format, memory, chosen * ffn, width);
  const Value y = graph.add(op("matmul"), {x, gate, up}, {{"weights", 2}, {"gate", std::string("silu")}});
  return graph.add(op("matmul"), {y, weight(graph, format, memory, width, chosen * ffn)});
}

void run(benchmark::State& state, bool mixed, int64_t m, const Options& options) {
  Graph graph;
  std::vector<Buffer> memory;
  const QuantFormat& format = quant::find_format(options.format);
  const TensorDesc x{{m, width}, DType::f32}, logits{{m, experts}, DType::f32};
  const Value in = graph.input("x", x), routing = graph.input("logits", logits);
  graph.output(mixed ? mixture(graph, in, routing, format, memory) : dense(graph, in, format, memory));
  ThreadPool pool(options.threads);
  Plan plan = Plan::compile(graph, {.threads = options.threads});
  std::vector<float> x_data(static_cast<size_t>(m * width)), logits_data(static_cast<size_t>(m * experts)),
      out(x_data.size());
  uint32_t random = 1;
  const auto next = [&] {
    return static_cast<float>((random = random * 1664525u + 1013904223u) >> 8) / 16777216.0f - 0.5f;
  };
  for (float& v : x_data) v = next();
  for (auto _ : state) {
    for (float& v : logits_data) v = next();
    const Tensor inputs[] = {{x, x_data.data()}, {logits, logits_data.data()}}, outputs[] = {{x, out.data()}};
    plan.run(pool, inputs, outputs);
  }
  const double products = 3.0 * static_cast<double>(m * chosen * ffn * width) * static_cast<double>(state.iterations());
  state.counters["GOP_s"] = benchmark::Counter(2e-9 * products, benchmark::Counter::kIsRate);
}

int run_all(int argc, char** argv) {
  Options options;
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string_view text = argv[i];
    if (text.starts_with("--threads=")) {
      options.threads = bench::flag_number(text);
    } else if (text.starts_with("--format=")) {
      options.format = text.substr(9);
      quant::find_format(options.format);
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  jit::register_kernels();
  std::printf("cpu: %s, kernels: %s, threads: %d\n", cpu_name().c_str(), std::string(name(max_isa())).c_str(),
              options.threads);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  for (int64_t m : {1, 8, 128, 512}) {
    for (bool mixed : {false, true}) {
      const std::string row = message(options.format, mixed ? "/mixture/" : "/dense/", m);
      benchmark::RegisterBenchmark(row.c_str(), [=](benchmark::State& state) {
        run(state, mixed, m, options);
      })->UseRealTime();
    }
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return nibble::bench::guarded_main(run_all, argc, argv); }
