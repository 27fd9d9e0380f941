// SPDX-License-Identifier: Apache-2.0
// Generating one token behind a context; row = model / positions before it. Besides Google Benchmark's own flags:
// --model=FILE (needed), --threads=N, --isa=NAME. Reports GB/s of weights and their share of the read bandwidth.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <string>
#include <vector>

#include "bench/support/bench_main.h"
#include "jit/jit.h"
#include "jit/peak.h"
#include "models/decoder.h"
#include "tensor/check.h"

namespace {

using namespace nibble;

struct Options {
  std::string model;
  models::EngineOptions engine{.threads = default_threads()};
};

Options parse_options(int& argc, char** argv) {
  Options options;
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string text = argv[i], value = text.substr(text.find('=') + 1);
    if (text.starts_with("--model=")) {
      options.model = value;
    } else if (text.starts_with("--threads=")) {
      options.engine.threads = bench::flag_number(text);
    } else if (text.starts_with("--isa=")) {
      options.engine.max_isa = parse_isa(value);
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  NIBBLE_CHECK(!options.model.empty(), "--model=FILE is missing");
  return options;
}

void decode(benchmark::State& state, models::Engine& engine, int depth, double bandwidth) {
  std::vector<models::Row> rows;
  for (int i = 0; i < depth; ++i) rows.push_back({i * 7919 % engine.model().config.vocab, i, 0, false});
  engine.truncate(0, 0);
  engine.run(rows);
  const models::Row next{1, depth, 0, true};
  for (auto _ : state) engine.run({&next, 1});
  const auto read = static_cast<double>(engine.model().bytes_per_token) * static_cast<double>(state.iterations());
  state.counters["GB_s"] = benchmark::Counter(read / 1e9, benchmark::Counter::kIsRate);
  state.counters["pct_read"] = benchmark::Counter(100 * read / bandwidth, benchmark::Counter::kIsRate);
}

int run_all(int argc, char** argv) {
  const Options options = parse_options(argc, argv);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  jit::register_kernels();
  const auto model = models::Model::load(options.model, {.need_tokenizer = false, .arch = {}, .progress = {}});
  models::Engine engine(model, options.engine);
  const double bandwidth = jit::measure_read_bandwidth(options.engine.threads);
  std::printf("cpu: %s, kernels: %s, read: %.1f GB/s\n", cpu_name().c_str(), engine.kernels_line().c_str(),
              bandwidth / 1e9);
  for (const int depth : {0, 512, 2048}) {
    if (depth >= engine.context()) continue;
    const std::string row = message(model->arch->name, '_', model->format, "/d", depth);
    benchmark::RegisterBenchmark(row.c_str(), [&, depth](benchmark::State& state) {
      decode(state, engine, depth, bandwidth);
    })->UseRealTime()->Unit(benchmark::kMillisecond);
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return nibble::bench::guarded_main(run_all, argc, argv); }
