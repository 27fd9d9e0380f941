// SPDX-License-Identifier: Apache-2.0
// Loading a model whose files are in the page cache, beside what reading the files takes: into one buffer per thread,
// and into memory of their size. --model=FILE (a .gguf of one shard) or a Hugging Face folder [--threads=N]
// [--rounds=N]
// [--quant=FORMAT] [--packed-cache=DIR: makes a copy there and maps it] [--cold: the files' pages are dropped before
// each row]. Seconds, rounds by turns: the fastest and the middle of each, and GB/s of the files by the latter.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "bench/support/bench_main.h"
#include "models/decoder.h"
#include "tensor/buffer.h"
#include "tensor/check.h"
#include "tensor/parallel.h"

namespace {

using namespace nibble;

struct Options {
  std::string model, packed_cache, quant;
  int threads = default_threads(), rounds = 3;
  bool cold = false;
};

struct Row {
  const char* name;
  std::function<void()> run;
  std::vector<double> seconds = {};
};

std::vector<std::string> files_of(const std::string& model) {
  if (!std::filesystem::is_directory(model)) return {model};
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(model))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path().string());
  return files;
}

void drop_pages(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool dropped = fd >= 0 && fdatasync(fd) == 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0;
  if (fd >= 0) close(fd);
  NIBBLE_CHECK(dropped, "cannot drop the pages of ", path);
}

void read_file(const std::string& path, ThreadPool& pool, bool keep) {
  constexpr size_t chunk = 256 << 10;
  const MappedFile file(path);
  const size_t size = file.bytes().size();
  const Buffer whole(keep ? size : 0);
  std::vector<Buffer> buffers(static_cast<size_t>(pool.size()));
  pool.for_each(static_cast<int64_t>((size + chunk - 1) / chunk), 4,
                [&](int64_t begin, int64_t end, const Worker& worker) {
                  Buffer& buffer = buffers[static_cast<size_t>(worker.index)];
                  if (buffer.size() == 0) buffer = Buffer(chunk);
                  for (auto at = static_cast<size_t>(begin) * chunk;
                       at < std::min(static_cast<size_t>(end) * chunk, size); at += chunk)
                    file.read(at, {keep ? whole.data() + at : buffer.data(), std::min(chunk, size - at)});
                });
}

int run(const Options& options) {
  NIBBLE_CHECK(!options.model.empty(), "--model=FILE is missing");
  NIBBLE_CHECK(options.rounds >= 1, "--rounds: expected at least 1, found ", options.rounds);
  ThreadPool pool(options.threads);
  const std::vector<std::string> files = files_of(options.model);
  double bytes = 0;
  for (const std::string& file : files) bytes += static_cast<double>(std::filesystem::file_size(file));
  const auto read_files = [&](bool keep) {
    for (const std::string& file : files) read_file(file, pool, keep);
  };
  const auto load = [&](const std::string& packed_cache) {
    models::LoadOptions load_options;
    load_options.threads = options.threads;
    load_options.packed_cache = packed_cache;
    load_options.quant = options.quant;
    load_options.need_tokenizer = false;
    models::Model::load(options.model, load_options);
  };
  std::vector<Row> rows{{"read into a buffer per thread", [&] { read_files(false); }},
                        {"read into memory", [&] { read_files(true); }},
                        {"load", [&] { load(""); }}};
  if (!options.packed_cache.empty()) {
    load(options.packed_cache);
    rows.push_back({"load, packed copy", [&] { load(options.packed_cache); }});
  }
  for (int round = 0; round <= options.rounds; ++round)
    for (Row& row : rows) {
      if (options.cold) std::for_each(files.begin(), files.end(), drop_pages);
      const auto begin = std::chrono::steady_clock::now();
      row.run();
      const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
      if (round > 0) row.seconds.push_back(time.count());  // the first one only fills the page cache
    }
  for (Row& row : rows) {
    std::sort(row.seconds.begin(), row.seconds.end());
    const double middle = row.seconds[row.seconds.size() / 2];
    std::printf("%-30s %8.3f s %8.3f s %8.2f GB/s\n", row.name, row.seconds.front(), middle, bytes / middle / 1e9);
  }
  return 0;
}

int run_all(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string text = argv[i], value = text.substr(text.find('=') + 1);
    if (text.starts_with("--model=")) options.model = value;
    else if (text.starts_with("--packed-cache=")) options.packed_cache = value;
    else if (text.starts_with("--quant=")) options.quant = value;
    else if (text == "--cold") options.cold = true;
    else if (text.starts_with("--threads=")) options.threads = bench::flag_number(text);
    else if (text.starts_with("--rounds=")) options.rounds = bench::flag_number(text);
    else fail("unknown flag ", text);
  }
  return run(options);
}

}  // namespace

int main(int argc, char** argv) { return nibble::bench::guarded_main(run_all, argc, argv); }
