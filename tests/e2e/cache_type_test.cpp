// SPDX-License-Identifier: Apache-2.0
// Keys and values in every type of EngineOptions::cache: near those of f32, and the same bits however a prompt is cut.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "jit/jit.h"
#include "models/decoder.h"
#include "tests/support/npy.h"

namespace nibble::models {
namespace {

const std::string stem = NIBBLE_TEST_DATA "/models/llama-3";

std::shared_ptr<const Model> load() {
  jit::register_kernels();
  return Model::load(stem + ".gguf", {.threads = 1, .need_tokenizer = false, .arch = {}, .progress = {}});
}

/// All logits of the golden's tokens.
std::vector<float> run(const std::shared_ptr<const Model>& model, DType cache, int threads, int chunk) {
  const std::vector<int32_t> tokens = test::read_npy<int32_t>(stem + ".tokens.npy").data;
  Engine engine(model, {.threads = threads, .context = 96, .chunk = chunk, .cache = cache});
  std::vector<Row> rows;
  for (size_t i = 0; i < tokens.size(); ++i) rows.push_back({tokens[i], static_cast<int32_t>(i), 0, true});
  const std::span<const float> logits = engine.run(rows);
  return {logits.begin(), logits.end()};
}

TEST(CacheType, ChunksAndThreadsChangeNoBit) {
  const auto model = load();
  for (DType type : {DType::f32, DType::bf16, DType::i8}) {
    const std::vector<float> whole = run(model, type, 1, 512);
    for (int threads : {1, 2})
      for (int chunk : {1, 7, 64})
        EXPECT_EQ(whole, run(model, type, threads, chunk)) << name(type) << ", chunks of " << chunk;
  }
}

TEST(CacheType, LogitsAreNearThoseOfFloats) {
  const auto model = load();
  const std::vector<float> floats = run(model, DType::f32, 1, 512);
  const auto [low, high] = std::minmax_element(floats.begin(), floats.end());
  // An element is rounded by 2^-12 (f16) or 2^-9 (bf16) of its power of two above, or 1 / 254 of a row's largest (i8),
  // averaged over sums of a head.
  for (auto [type, relative] :
       {std::pair{DType::f16, 1.0f / 4096}, {DType::bf16, 1.0f / 512}, {DType::i8, 1.0f / 254}}) {
    const std::vector<float> got = run(model, type, 1, 512);
    float worst = 0;
    for (size_t i = 0; i < got.size(); ++i) worst = std::max(worst, std::abs(got[i] - floats[i]));
    EXPECT_LE(worst, 2 * relative * (*high - *low)) << name(type);
    EXPECT_GT(worst, 0) << name(type);
  }
}

}  // namespace
}  // namespace nibble::models
