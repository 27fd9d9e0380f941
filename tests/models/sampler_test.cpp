// SPDX-License-Identifier: Apache-2.0
// The sampler against distributions computed here in double, with code of their own.
#include "models/text/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <numeric>

#include "tensor/check.h"
#include "tests/support/cpu_time.h"

namespace nibble::models {
namespace {

constexpr float inf = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();
const std::vector<float> logits = {2.0f, 1.5f, 1.5f, 0.3f, -0.2f, -1.0f, -1.1f, -4.0f};

SamplerOptions plain() {
  SamplerOptions o;
  o.temperature = 1;
  o.top_k = 0;
  o.top_p = 1;
  o.min_p = 0;
  return o;
}

using Distribution = std::map<int, double>;  // token -> probability

Distribution normalised(Distribution d) {
  double sum = 0;
  for (auto& [token, p] : d) sum += p;
  for (auto& [token, p] : d) p /= sum;
  return d;
}

Distribution softmax(const std::vector<double>& values, double temperature = 1) {
  Distribution d;
  for (size_t i = 0; i < values.size(); ++i) d[static_cast<int>(i)] = std::exp(values[i] / temperature);
  return normalised(d);
}

std::vector<double> wide(const std::vector<float>& values) { return {values.begin(), values.end()}; }

/// Draws often and compares every frequency with its probability; 6 standard deviations of a binomial.
void expect_draws(const SamplerOptions& options, const Distribution& want, const std::vector<float>& values = logits,
                  const std::vector<int32_t>& history = {}) {
  Sampler sampler(options);
  for (int32_t token : history) sampler.accept(token);
  constexpr int draws = 40000;
  std::map<int, int> counts;
  for (int i = 0; i < draws; ++i) ++counts[sampler.sample(values)];
  for (const auto& [token, count] : counts) EXPECT_TRUE(want.count(token)) << "token " << token << " was cut off";
  for (const auto& [token, p] : want) {
    const double bound = 6 * std::sqrt(p * (1 - p) / draws) + 1e-9;
    EXPECT_NEAR(static_cast<double>(counts[token]) / draws, p, bound) << "token " << token;
  }
}

Distribution only(Distribution d, std::initializer_list<int> tokens) {
  std::erase_if(d,
                [&](const auto& item) { return std::find(tokens.begin(), tokens.end(), item.first) == tokens.end(); });
  return normalised(d);
}

TEST(Sampler, DrawsTheSoftmax) { expect_draws(plain(), softmax(wide(logits))); }

TEST(Sampler, TemperatureDividesTheLogits) {
  SamplerOptions o = plain();
  for (float t : {0.3f, 0.8f, 2.5f}) {
    o.temperature = t;
    expect_draws(o, softmax(wide(logits), t));
  }
}

TEST(Sampler, TopKKeepsTheBestAndBreaksTiesById) {
  SamplerOptions o = plain();
  o.top_k = 2;
  expect_draws(o, only(softmax(wide(logits)), {0, 1}));
  o.top_k = 1000;
  expect_draws(o, softmax(wide(logits)));
}

TEST(Sampler, TopPKeepsTheTokenThatReachesIt) {
  const Distribution all = softmax(wide(logits));
  SamplerOptions o = plain();
  o.top_p = static_cast<float>(all.at(0) + all.at(1) * 0.5);
  expect_draws(o, only(all, {0, 1}));
  o.top_p = 0;
  expect_draws(o, only(all, {0}));
  o.min_keep = 3;
  expect_draws(o, only(all, {0, 1, 2}));
}

TEST(Sampler, MinPIsRelativeToTheBest) {
  SamplerOptions o = plain();
  o.min_p = static_cast<float>(std::exp(-2.21));  // logits from 2 - 2.21 on
  expect_draws(o, only(softmax(wide(logits)), {0, 1, 2, 3, 4}));
}

TEST(Sampler, TypicalKeepsWhatIsNearTheEntropy) {
  const Distribution all = softmax(wide(logits));
  double entropy = 0;
  for (const auto& [token, p] : all) entropy -= p * std::log(p);
  std::vector<std::pair<double, int>> order;
  for (const auto& [token, p] : all) order.emplace_back(std::abs(-std::log(p) - entropy), token);
  std::sort(order.begin(), order.end());
  SamplerOptions o = plain();
  o.typical_p = 0.6f;
  Distribution want;
  double sum = 0;
  for (const auto& [distance, token] : order) {
    want[token] = all.at(token);
    if ((sum += all.at(token)) > 0.6) break;
  }
  ASSERT_LT(want.size(), all.size());
  expect_draws(o, normalised(want));
}

TEST(Sampler, CutsSeeTheDistributionBeforeTheTemperature) {
  SamplerOptions o = plain();
  o.temperature = 3;
  o.top_k = 4;
  const Distribution four = only(softmax(wide(logits)), {0, 1, 2, 3});
  o.top_p = static_cast<float>(four.at(0) + four.at(1) + 0.5 * four.at(2));
  Distribution want;
  for (int token : {0, 1, 2}) want[token] = std::exp(double{logits[static_cast<size_t>(token)]} / 3);
  expect_draws(o, normalised(want));
}

TEST(Sampler, PenaltiesDivideMultiplyAndSubtract) {
  SamplerOptions o = plain();
  o.repeat_penalty = 1.3f;
  o.frequency_penalty = 0.2f;
  o.presence_penalty = 0.1f;
  std::vector<double> values = wide(logits);
  values[0] = values[0] / 1.3 - 2 * 0.2 - 0.1;
  values[4] = values[4] * 1.3 - 1 * 0.2 - 0.1;
  expect_draws(o, softmax(values), logits, {0, 4, 0});
  o.repeat_last_n = 1;
  values = wide(logits);
  values[0] = values[0] / 1.3 - 0.2 - 0.1;
  expect_draws(o, softmax(values), logits, {0, 4, 0});
  o.repeat_last_n = 0;
  expect_draws(o, softmax(wide(logits)), logits, {0, 4, 0});
  o.repeat_last_n = -1;
  Sampler sampler(o);
  sampler.accept(-5);
  sampler.accept(1 << 20);
  EXPECT_NO_THROW(sampler.sample(logits)) << "tokens outside the logits are ignored";
}

TEST(Sampler, GreedyTakesTheHighestAndTheLowestIdOfEquals) {
  for (float temperature : {0.0f, -1.0f}) {
    SamplerOptions o;
    o.temperature = temperature;
    EXPECT_EQ(Sampler(o).sample(logits), 0);
    EXPECT_EQ(Sampler(o).sample(std::vector<float>{-1, 3, 3, 2}), 1);
    o.repeat_penalty = 10;
    Sampler sampler(o);
    sampler.accept(1);
    EXPECT_EQ(sampler.sample(std::vector<float>{-1, 3, 3, 2}), 2) << "greedy is after the penalties";
  }
}

TEST(Sampler, TheSameSeedGivesTheSameTokens) {
  SamplerOptions o;
  o.seed = 42;
  std::vector<int32_t> first, again, other;
  for (auto* tokens : {&first, &again, &other}) {
    if (tokens == &other) o.seed = 43;
    Sampler sampler(o);
    for (int i = 0; i < 200; ++i) {
      tokens->push_back(sampler.sample(logits));
      sampler.accept(tokens->back());
    }
  }
  EXPECT_EQ(first, again);
  EXPECT_NE(first, other);
}

TEST(Sampler, SurvivesExtremes) {
  SamplerOptions o = plain();
  EXPECT_EQ(Sampler(o).sample(std::vector<float>{7}), 0);
  EXPECT_EQ(Sampler(o).sample(std::vector<float>{nan, -inf, -3, nan}), 2);
  EXPECT_EQ(Sampler(o).sample(std::vector<float>{0, inf, -inf, nan}), 1);
  o.temperature = 1e-30f;
  EXPECT_EQ(Sampler(o).sample(logits), 0);
  o.temperature = 0;
  EXPECT_EQ(Sampler(o).sample(std::vector<float>{nan, -inf, -3, nan}), 2);
  EXPECT_THROW(Sampler(o).sample(std::vector<float>{nan, -inf}), Error);
  EXPECT_THROW(Sampler(plain()).sample(std::vector<float>{-inf, -inf}), Error);
  EXPECT_THROW(Sampler(plain()).sample(std::vector<float>{}), Error);
}

TEST(Sampler, SaysWhichOptionIsOutOfRange) {
  const auto message = [](auto change) {
    SamplerOptions o;
    change(o);
    try {
      check(o);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_NE(message([](auto& o) { o.temperature = nan; }).find("temperature"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.top_p = -0.1f; }).find("top_p"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.min_p = 1.5f; }).find("min_p"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.typical_p = nan; }).find("typical_p"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.repeat_last_n = -2; }).find("repeat_last_n"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.repeat_penalty = 0; }).find("repeat_penalty"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.frequency_penalty = inf; }).find("frequency_penalty"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.presence_penalty = -inf; }).find("presence_penalty"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.min_keep = -1; }).find("min_keep"), std::string::npos);
  EXPECT_EQ(message([](auto&) {}), "no error");
}

TEST(Sampler, LargeVocabulariesAreNotSorted) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> values(150000);
  for (float& value : values) value = normal(random);
  Sampler sampler(SamplerOptions{});
  const double start = test::cpu_seconds();
  for (int i = 0; i < 50; ++i) sampler.sample(values);
  const double ms = 1e3 * (test::cpu_seconds() - start) / 50;
  std::printf("sampling from 150000 logits: %.2f ms\n", ms);
  EXPECT_LT(ms, 200);
}

}  // namespace
}  // namespace nibble::models
