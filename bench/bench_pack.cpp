// SPDX-License-Identifier: Apache-2.0
// Loading weights: file blocks to panels (bytes/s of the file), floats to panels (also from a file's elements, as many
// as a loader reads at once: bytes/s of the file) and panel rows to floats, one thread.
#include <benchmark/benchmark.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "quant/format.h"
#include "quant/quantize.h"

namespace {

using namespace nibble;
using namespace nibble::quant;

constexpr int64_t n = 1024, k = 4096;

std::vector<float> random_weights() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0f, 0.05f);
  std::vector<float> weights(n * k);
  for (float& w : weights) w = normal(random);
  return weights;
}

// Any bytes will do: what a block holds does not change the work, apart from subnormal scales, which 0x11 avoids.
void pack(benchmark::State& state, const BlockType* type) {
  const std::vector<std::byte> blocks(static_cast<size_t>(n * k / type->block_elements) * type->block_bytes,
                                      std::byte{0x11});
  std::vector<std::byte> packed(type->format->bytes(*type->format, n, k));
  for (auto _ : state) {
    pack_rows(*type, blocks.data(), n, k, 0, n, packed.data());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(blocks.size()));
  state.counters["bits"] = static_cast<double>(packed.size()) * 8 / (n * k);
}

void quantize(benchmark::State& state, const QuantFormat* format) {
  const auto weights = random_weights();
  std::vector<std::byte> packed(format->bytes(*format, n, k));
  for (auto _ : state) {
    quantize_rows(*format, weights.data(), n, k, 0, n, packed.data());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * n * k);
}

void quantize_file(benchmark::State& state, const BlockType* type, const QuantFormat* format) {
  const int64_t rows = static_cast<int64_t>((256 << 10) / type->block_bytes) / k;
  std::vector<float> weights = random_weights();
  std::vector<std::byte> blocks(static_cast<size_t>(rows * k) * type->block_bytes);
  for (size_t i = 0; i < static_cast<size_t>(rows * k); ++i) {
    const uint16_t half = type->name == "f16" ? f32_to_f16(weights[i]) : f32_to_bf16(weights[i]);
    const void* element = type->block_bytes == 4 ? static_cast<const void*>(&weights[i]) : &half;
    std::memcpy(blocks.data() + i * type->block_bytes, element, type->block_bytes);
  }
  std::vector<std::byte> packed(format->bytes(*format, rows, k));
  for (auto _ : state) {
    quantize_blocks(*format, *type, blocks.data(), rows, k, 0, rows, packed.data());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(blocks.size()));
}

// One row at a time, as an embedding is read.
void dequantize_row(benchmark::State& state, const QuantFormat* format) {
  const std::vector<std::byte> packed(format->bytes(*format, n, k), std::byte{0x11});
  std::vector<float> out(k);
  int64_t row = 0;
  for (auto _ : state) {
    format->dequantize(*format, packed.data(), n, k, row, 1, out.data());
    benchmark::ClobberMemory();
    row = (row + 97) % n;
  }
  state.SetItemsProcessed(state.iterations() * k);
}

}  // namespace

int main(int argc, char** argv) {
  for (const BlockType* type : native_block_types())
    benchmark::RegisterBenchmark(("pack/" + std::string(type->name)).c_str(), pack, type);
  for (const BlockType* type : all_block_types()) {
    benchmark::RegisterBenchmark(("pack/" + std::string(type->name)).c_str(), pack, type);
    benchmark::RegisterBenchmark(("dequantize_row/" + std::string(type->format->name)).c_str(), dequantize_row,
                                 type->format);
  }
  for (const QuantFormat* format : all_formats()) {
    if (format->layout.sub_groups) continue;
    benchmark::RegisterBenchmark(("quantize/" + std::string(format->name)).c_str(), quantize, format);
    for (const BlockType* type : all_block_types()) {
      if (type->format->layout.bits != 0 || format->layout.bits == 0) continue;
      const std::string name = "quantize_file/" + std::string(type->name) + "/" + std::string(format->name);
      benchmark::RegisterBenchmark(name.c_str(), quantize_file, type, format);
    }
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
