// SPDX-License-Identifier: Apache-2.0
// matmul_q, or matmul where the format is one of floats, by the generated kernels; row = kernel / M x N x K of
// bench/shapes/*.txt. Weights cycle through more than the last-level cache unless --hot. Besides Google Benchmark's own
// flags: --threads=N, --format=NAME (repeatable, default q4s_g32), --isa=NAME, --shape=M,N,K (repeatable, instead of
// the files), --hot. Counters come from the fastest iteration: GB_s weights read, GOP_s, and per cent of the peaks
// measured just before (pct_mix: of the whole instruction mix, jit/peak.h, for symmetric 4-bit layouts).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>

#include "bench/support/bench_main.h"
#include "jit/jit.h"
#include "jit/peak.h"
#include "quant/activation.h"
#include "quant/format.h"
#include "tensor/buffer.h"
#include "tensor/check.h"
#include "tensor/kernel.h"
#include "tensor/parallel.h"

namespace {

using namespace nibble;

struct Shape3 {
  int64_t m, n, k;
};

struct Options {
  int threads = default_threads();
  std::vector<std::string> formats;
  std::vector<Shape3> shapes;
  Isa isa = max_isa();
  bool hot = false;
};

double bandwidth(int threads) {
  static std::map<int, double> known;
  double& value = known[threads];
  if (value == 0) value = jit::measure_read_bandwidth(threads);
  return value;
}

class Case {
 public:
  Case(const Shape3& s, const QuantFormat& format, const Options& options)
      : shape_(s), options_(options), format_(format), node_{nullptr, {}, {}, {}, "bench"} {
    const TensorDesc weight{{s.n, s.k}, DType::packed, &format};
    descs_ = {fill_activations(), weight};
    const size_t cold = options.hot ? 1 : 3 * cache_sizes().l3;
    copies_ = cold / bytes(weight) + 1;
    weights_ = Buffer(copies_ * bytes(weight));
    std::memset(weights_.data(), 0x11, weights_.size());
    if (float_book(format.layout.codebook) != nullptr) fill_float_scales();
    out_ = Buffer(static_cast<size_t>(s.m * s.n) * 4);
    bind();
  }

  /// Products of common sizes: kernels would stumble over subnormal ones.
  void fill_float_scales() {
    const quant::PanelGeometry geometry = quant::panel_geometry(format_.layout, shape_.n, shape_.k);
    const std::vector<float> scales((geometry.panel_bytes - geometry.scales_offset) / sizeof(float),
                                    0.01f * float_book(format_.layout.codebook)->unit);
    for (std::byte* panel = weights_.data(); panel != weights_.data() + weights_.size();
         panel += geometry.panel_bytes) {
      std::memcpy(panel + geometry.scales_offset, scales.data(), scales.size() * sizeof(float));
    }
  }

  TensorDesc fill_activations() {
    const Shape3& s = shape_;
    const bool floats = float_weights(format_.layout);
    const quant::ActNeeds needs = floats ? quant::ActNeeds{} : quant::act_needs(format_.layout);
    const TensorDesc act{{s.m, s.k}, floats ? DType::f32 : DType::packed, floats ? nullptr : &quant::act_format(needs)};
    act_ = Buffer(bytes(act));
    std::vector<float> x(static_cast<size_t>(s.k));
    for (int64_t i = 0; i < s.m; ++i) {
      for (size_t j = 0; j < x.size(); ++j) {
        x[j] = static_cast<float>((static_cast<int64_t>(j) * 37 + i) % 255 - 127);
      }
      if (floats) std::memcpy(act_.data() + i * s.k * 4, x.data(), x.size() * 4);
      else quant::quantize_act_row(needs, x.data(), s.m, s.k, i, act_.data());
    }
    return act;
  }

  const std::string& kernel() const { return bound_.detail; }

  void run(benchmark::State& state) {
    ThreadPool pool(options_.threads);
    const double int8_peak = jit::measure_int8_peak(options_.isa, options_.threads);
    double best = 1e30;
    size_t copy = 0;
    for (auto _ : state) {
      const Tensor in[] = {{descs_[0], act_.data()}, {descs_[1], weights_.data() + copy * bytes(descs_[1])}};
      const Tensor out({{shape_.m, shape_.n}, DType::f32, nullptr}, out_.data());
      std::atomic<int64_t> counters[4] = {};
      const auto start = std::chrono::steady_clock::now();
      pool.run([&](const Worker& worker) {
        bound_.run(bound_.state.get(), {in, out, &node_.attrs, worker, scratch_.data(), counters});
      });
      best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      copy = (copy + 1) % copies_;
    }
    const double read = static_cast<double>(bytes(descs_[1])) / best;
    const double operations = 2.0 * static_cast<double>(shape_.m * shape_.n * shape_.k) / best;
    state.counters["GB_s"] = read / 1e9;
    state.counters["GOP_s"] = operations / 1e9;
    state.counters["peak_GOP_s"] = int8_peak / 1e9;
    state.counters["pct_int8"] = 100 * operations / int8_peak;
    const QuantLayout& layout = format_.layout;
    if (!float_weights(layout) && layout.bits == 4 && layout.zero_point == ZeroPoint::symmetric && layout.group >= 32 &&
        options_.isa != Isa::amxint8) {
      const double mix_peak = jit::measure_int8_mix_peak(options_.isa, options_.threads, layout.group);
      state.counters["pct_mix"] = 100 * operations / mix_peak;
    }
    if (shape_.m <= 16) state.counters["pct_read"] = 100 * read / bandwidth(options_.threads);
  }

 private:
  void bind() {
    const Tensor constants[2] = {{}, {descs_[1], weights_.data()}};
    const nibble::Shape strides[2] = {{shape_.k, 1}, {}};
    const Call call{&node_,           descs_, constants, strides, {{shape_.m, shape_.n}, DType::f32, nullptr},
                    options_.threads, true};
    for (const Kernel& kernel : kernels_for(float_weights(format_.layout) ? "matmul" : "matmul_q")) {
      if (kernel.isa != options_.isa || kernel.rejects(call)) continue;
      bound_ = kernel.bind(call);
      scratch_ = Buffer(bound_.scratch_bytes);
      return;
    }
    fail("no kernel of ", name(options_.isa), " for ", format_.name);
  }

  const Shape3 shape_;
  const Options& options_;
  const QuantFormat& format_;
  Node node_;
  std::vector<TensorDesc> descs_;
  Buffer act_, weights_, out_, scratch_;
  size_t copies_ = 1;
  Bound bound_;
};

Shape3 parse_shape(std::string text) {
  std::replace(text.begin(), text.end(), ',', ' ');
  std::istringstream in(text);
  Shape3 s{};
  in >> s.m >> s.n >> s.k;
  NIBBLE_CHECK(in, "shape \"", text, "\": expected M N K");
  return s;
}

Options parse_options(int& argc, char** argv) {
  Options options;
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string_view text = argv[i];
    const std::string value(text.substr(std::min(text.size(), text.find('=') + 1)));
    if (text == "--hot") {
      options.hot = true;
    } else if (text.starts_with("--threads=")) {
      options.threads = bench::flag_number(text);
    } else if (text.starts_with("--format=")) {
      quant::find_format(value);
      options.formats.push_back(value);
    } else if (text.starts_with("--isa=")) {
      options.isa = parse_isa(value);
    } else if (text.starts_with("--shape=")) {
      options.shapes.push_back(parse_shape(value));
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  if (options.formats.empty()) options.formats.push_back("q4s_g32");
  if (!options.shapes.empty()) return options;
  for (const auto& file : std::filesystem::directory_iterator(NIBBLE_SOURCE_DIR "/bench/shapes")) {
    std::ifstream in(file.path());
    for (std::string line; std::getline(in, line);) options.shapes.push_back(parse_shape(line));
  }
  return options;
}

int run_all(int argc, char** argv) {
  const Options options = parse_options(argc, argv);
  jit::register_kernels();
  std::printf("cpu: %s, kernels: %s, threads: %d, read: %.1f GB/s\n", cpu_name().c_str(),
              std::string(name(options.isa)).c_str(), options.threads, bandwidth(options.threads) / 1e9);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  for (const std::string& format : options.formats) {
    for (const Shape3& s : options.shapes) {
      const std::string row = message(format, '/', s.m, 'x', s.n, 'x', s.k);
      benchmark::RegisterBenchmark(row.c_str(), [=, &options](benchmark::State& state) {
        Case c(s, quant::find_format(format), options);
        state.SetLabel(c.kernel());
        c.run(state);
      })->UseRealTime();
    }
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return nibble::bench::guarded_main(run_all, argc, argv); }
