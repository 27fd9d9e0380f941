// SPDX-License-Identifier: Apache-2.0
// Rotary frequencies against the formulas written out in double.
#include "models/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "models/arch.h"
#include "tensor/check.h"

namespace nibble::models {
namespace {

Config rope(RopeScaling::Type type) {
  Config c;
  c.rope_dim = 64, c.rope_theta = 10000, c.context = 32768;
  c.rope_scaling.type = type;
  c.rope_scaling.factor = 8;
  c.rope_scaling.original_context = 4096;
  return c;
}

double plain(int i) { return std::pow(10000.0, -2.0 * i / 64); }

// pow in f32 is good to an ulp or two; the blends add a few roundings
void expect_near(const std::vector<float>& got, const std::function<double(int)>& want) {
  ASSERT_EQ(got.size(), 32u);
  for (int i = 0; i < 32; ++i) EXPECT_NEAR(got[i], want(i), want(i) * 1e-6) << i;
}

TEST(RopeFrequencies, FollowTheirFormulas) {
  using Type = RopeScaling::Type;
  expect_near(rope_frequencies(rope(Type::none), {}), plain);
  expect_near(rope_frequencies(rope(Type::linear), {}), [](int i) { return plain(i) / 8; });
  expect_near(rope_frequencies(rope(Type::llama3), {}), [](int i) {
    const double turns = 4096 * plain(i) / (2 * M_PI);  // over the original context
    if (turns < 1) return plain(i) / 8;
    if (turns > 4) return plain(i);
    const double smooth = (turns - 1) / 3;
    return (1 - smooth) * plain(i) / 8 + smooth * plain(i);
  });
  expect_near(rope_frequencies(rope(Type::yarn), {}), [](int i) {
    const auto pair = [](double turns) { return 64 * std::log(4096 / (turns * 2 * M_PI)) / (2 * std::log(10000.0)); };
    const double low = std::floor(pair(32)), high = std::ceil(pair(1));
    const double ramp = std::clamp((i - low) / (high - low), 0.0, 1.0);
    return plain(i) / 8 * ramp + plain(i) * (1 - ramp);
  });
}

TEST(RopeFrequencies, FactorsOfTheFileReplaceTheScaling) {
  std::vector<float> factors(32, 2);
  factors[3] = 5;
  expect_near(rope_frequencies(rope(RopeScaling::Type::linear), factors),
              [](int i) { return plain(i) / (i == 3 ? 5 : 2); });
  EXPECT_THROW(rope_frequencies(rope(RopeScaling::Type::none), std::vector<float>(31, 1)), Error);
}

TEST(Config, ReadsHuggingFaceNames) {
  const nlohmann::json json = {
      {"model_type", "llama"}, {"num_hidden_layers", 2}, {"hidden_size", 64}, {"num_attention_heads", 4},
      {"num_key_value_heads", 2}, {"intermediate_size", 96}, {"max_position_embeddings", 2048}, {"vocab_size", 100},
      {"rms_norm_eps", 1e-6}, {"rope_theta", 500000.0},
      {"rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 1024}}}};
  const Config c = find_arch("llama").config(Metadata(Metadata::Source::hugging_face, "config.json", "", json));
  EXPECT_EQ(c.head_dim, 16);
  EXPECT_EQ(c.vocab, 100);
  EXPECT_EQ(c.pairing, Pairing::halves);
  EXPECT_EQ(c.rope_theta, 500000.0f);
  EXPECT_EQ(c.rope_scaling.type, RopeScaling::Type::llama3);
  EXPECT_EQ(c.rope_scaling.original_context, 1024);
}

TEST(Archs, AreFoundByNameAndModelType) {
  for (const Arch& arch : all_archs()) {
    EXPECT_EQ(find_arch(arch.name).name, arch.name);
    for (std::string_view type : arch.model_types) EXPECT_EQ(find_arch(type).name, arch.name);
    EXPECT_FALSE(arch.examples.empty());
    if (!arch.base.empty()) {
      EXPECT_NO_THROW(find_arch(arch.base));
    }
  }
  EXPECT_THROW(find_arch("nonesuch"), Error);
}

}  // namespace
}  // namespace nibble::models
