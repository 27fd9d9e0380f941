// SPDX-License-Identifier: Apache-2.0
// Every fuzz target on its seeds and on mutations of them, always the same ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/targets.h"
#include "tests/support/gguf_writer.h"

namespace nibble::fuzz {
namespace {

struct Target {
  const char* name;
  void (*run)(std::string_view);
};
constexpr Target targets[] = {
#define NIBBLE_FUZZ(name) {#name, name},
#include "tests/fuzz/target_list.inc"
#undef NIBBLE_FUZZ
};

std::vector<std::string> seeds(const std::string& target) {
  std::vector<std::string> paths, texts;
  const std::filesystem::path folder = std::filesystem::path(NIBBLE_FUZZ_CORPUS) / target;
  if (std::filesystem::is_directory(folder))
    for (const auto& entry : std::filesystem::directory_iterator(folder)) paths.push_back(entry.path().string());
  std::sort(paths.begin(), paths.end());
  for (const std::string& path : paths) texts.push_back(test::read_file(path));
  return texts;
}

class Mutator {
 public:
  explicit Mutator(std::vector<std::string> seeds) : seeds_(std::move(seeds)) {}

  std::string next() {
    std::string text = seeds_[below(seeds_.size())];
    for (size_t changes = 1 + below(4); changes > 0 && !text.empty(); --changes) change(text);
    return text;
  }

 private:
  size_t below(size_t count) { return static_cast<size_t>(random_() % count); }
  /// Headers stand first, and what is there matters most.
  size_t place(const std::string& text) {
    return below(below(2) == 0 ? std::min<size_t>(text.size(), 256) : text.size());
  }

  void change(std::string& text) {
    constexpr uint64_t numbers[] = {
        0, 1, 0x7f, 0xff, 0x7fffffff, 0x80000000, 0xffffffff, uint64_t{1} << 61, uint64_t{1} << 63, ~uint64_t{0}};
    const size_t at = place(text);
    switch (below(6)) {
      case 0: text[at] = static_cast<char>(random_()); return;
      case 1: text[at] = static_cast<char>(text[at] ^ (1 << below(8))); return;
      case 2: text.resize(at); return;
      case 3: text.erase(at, 1 + below(16)); return;
      case 4: {
        const uint64_t number = numbers[below(std::size(numbers))];
        const size_t bytes = std::min<size_t>(below(2) == 0 ? 4 : 8, text.size() - at);
        text.replace(at, bytes, reinterpret_cast<const char*>(&number), bytes);
        return;
      }
      default: {
        const std::string& other = seeds_[below(seeds_.size())];
        if (other.empty()) return;
        const size_t from = place(other);
        text.insert(at, other.substr(from, 1 + below(64)));
      }
    }
  }

  std::vector<std::string> seeds_;
  std::mt19937_64 random_{1};
};

class Fuzz : public ::testing::TestWithParam<Target> {};

TEST_P(Fuzz, AnyBytesAreReadOrRefused) {
  const std::vector<std::string> all = seeds(GetParam().name);
  if (all.empty()) GTEST_SKIP() << "no corpus in " << NIBBLE_FUZZ_CORPUS << ": run tests/fuzz/make_corpus.py";
  for (const std::string& seed : all) EXPECT_NO_THROW(GetParam().run(seed));
  Mutator mutator(all);
  constexpr int rounds = 1000;
  for (int i = 0; i < rounds; ++i) EXPECT_NO_THROW(GetParam().run(mutator.next())) << "mutation " << i;
}

INSTANTIATE_TEST_SUITE_P(Targets, Fuzz, ::testing::ValuesIn(targets),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace nibble::fuzz
