// SPDX-License-Identifier: Apache-2.0
// Loading a model whose file is in the page cache, beside what reading the file takes: into one buffer per thread, and
// into memory of its size (as a loader must). --model=FILE (a .gguf of one shard) [--threads=N] [--rounds=N]
// [--packed-cache=DIR: makes a copy there and maps it]. Seconds, rounds by turns, the fastest of each.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "models/decoder.h"
#include "tensor/buffer.h"
#include "tensor/check.h"
#include "tensor/parallel.h"

namespace {

using namespace nibble;

struct Options {
  std::string model, packed_cache;
  int threads = default_threads(), rounds = 3;
};

struct Row {
  const char* name;
  std::function<void()> run;
  double best = 1e9;
};

void read_file(const std::string& path, ThreadPool& pool, bool keep) {
  constexpr size_t chunk = 256 << 10;
  const MappedFile file(path);
  const size_t size = file.bytes().size();
  const Buffer whole(keep ? size : 0);
  std::vector<Buffer> buffers(static_cast<size_t>(pool.size()));
  pool.for_each(static_cast<int64_t>((size + chunk - 1) / chunk), 4, [&](int64_t begin, int64_t end, const Worker& worker) {
    Buffer& buffer = buffers[static_cast<size_t>(worker.index)];
    if (buffer.size() == 0) buffer = Buffer(chunk);
    for (auto at = static_cast<size_t>(begin) * chunk; at < std::min(static_cast<size_t>(end) * chunk, size); at += chunk)
      file.read(at, {keep ? whole.data() + at : buffer.data(), std::min(chunk, size - at)});
  });
}

int bench(const Options& options) {
  NIBBLE_CHECK(!options.model.empty(), "--model=FILE is missing");
  ThreadPool pool(options.threads);
  const auto load = [&](const std::string& packed_cache) {
    models::LoadOptions load_options;
    load_options.threads = options.threads;
    load_options.packed_cache = packed_cache;
    models::Model::load(options.model, load_options);
  };
  std::vector<Row> rows{{"read into a buffer per thread", [&] { read_file(options.model, pool, false); }},
                        {"read into memory", [&] { read_file(options.model, pool, true); }},
                        {"load", [&] { load(""); }}};
  if (!options.packed_cache.empty()) {
    load(options.packed_cache);
    rows.push_back({"load, packed copy", [&] { load(options.packed_cache); }});
  }
  for (int round = 0; round <= options.rounds; ++round)
    for (Row& row : rows) {
      const auto begin = std::chrono::steady_clock::now();
      row.run();
      const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
      if (round > 0) row.best = std::min(row.best, time.count());  // the first one only fills the page cache
    }
  for (const Row& row : rows) std::printf("%-30s %8.3f s\n", row.name, row.best);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    Options options;
    for (int i = 1; i < argc; ++i) {
      const std::string text = argv[i], value = text.substr(text.find('=') + 1);
      if (text.starts_with("--model=")) options.model = value;
      else if (text.starts_with("--packed-cache=")) options.packed_cache = value;
      else if (text.starts_with("--threads=")) options.threads = std::stoi(value);
      else if (text.starts_with("--rounds=")) options.rounds = std::stoi(value);
      else fail("unknown flag ", text);
    }
    return bench(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_load: %s\n", error.what());
    return 1;
  }
}
