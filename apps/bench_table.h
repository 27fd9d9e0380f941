// SPDX-License-Identifier: Apache-2.0
// Results of `nibble bench` as Markdown, JSON or CSV, with llama-bench's columns. Internal to apps/.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nibble::cli {

struct BenchRow {
  std::string model, isa;
  uint64_t model_bytes = 0, parameters = 0;
  int threads = 0, prompt = 0, generate = 0, depth = 0;
  std::vector<double> seconds;  ///< one per repetition
  double peak = 0;              ///< tokens/s at the machine's measured limit; 0: not measured

  std::string test() const;  ///< "pp512", "tg128 @ d4096"
  std::vector<double> speeds() const;  ///< tokens/s, one per repetition
};

enum class BenchFormat { markdown, json, csv };
std::string bench_table(const std::vector<BenchRow>& rows, BenchFormat format);

}  // namespace nibble::cli
