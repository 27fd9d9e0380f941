// SPDX-License-Identifier: Apache-2.0
// The choice with the least loss under a limit of size, against trying them all.
#include "models/allocate.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "tensor/check.h"

namespace nibble::models {
namespace {

using Items = std::vector<std::vector<Choice>>;

/// Larger choices mostly lose less, as types do; now and then one is worse in both.
Items random_items(size_t count, size_t choices, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform(0, 1);
  Items items(count);
  for (auto& item : items) {
    const double scale = 0.01 + uniform(random);
    const auto size = static_cast<uint64_t>(10 + 90 * uniform(random));
    for (size_t c = 0; c < choices; ++c)
      item.push_back({size * (c + 2) + static_cast<uint64_t>(5 * uniform(random)),
                      scale * (0.2 + uniform(random)) / static_cast<double>((c + 1) * (c + 1))});
  }
  return items;
}

Choice total(const Items& items, const std::vector<size_t>& chosen) {
  Choice sum;
  for (size_t i = 0; i < items.size(); ++i) {
    sum.bytes += items[i][chosen[i]].bytes;
    sum.loss += items[i][chosen[i]].loss;
  }
  return sum;
}

double least_loss(const Items& items, uint64_t budget, size_t item = 0) {
  if (item == items.size()) return 0;
  double best = std::numeric_limits<double>::infinity();
  for (const Choice& c : items[item])
    if (c.bytes <= budget) best = std::min(best, c.loss + least_loss(items, budget - c.bytes, item + 1));
  return best;
}

uint64_t smallest(const Items& items) {
  uint64_t sum = 0;
  for (const auto& item : items) {
    uint64_t least = item[0].bytes;
    for (const Choice& c : item) least = std::min(least, c.bytes);
    sum += least;
  }
  return sum;
}

TEST(Allocate, FindsWhatTryingAllFinds) {
  for (uint32_t seed = 0; seed < 40; ++seed) {
    const Items items = random_items(7, 4, seed);
    const uint64_t least = smallest(items);
    for (const double share : {1.0, 1.05, 1.3, 1.7, 2.2, 9.0}) {
      const auto budget = static_cast<uint64_t>(share * static_cast<double>(least));
      const Choice found = total(items, allocate(items, budget));
      EXPECT_LE(found.bytes, budget);
      const double expected = least_loss(items, budget);
      EXPECT_NEAR(found.loss, expected, 1e-12 * expected) << seed << ' ' << share;
    }
  }
}

TEST(Allocate, StaysNearTheBestWithFewStates) {
  const Items items = random_items(60, 8, 5);
  const uint64_t budget = 2 * smallest(items);
  const double exact = total(items, allocate(items, budget, 1 << 20)).loss;
  const Choice near = total(items, allocate(items, budget, 4));
  EXPECT_LE(near.bytes, budget);
  EXPECT_GE(near.loss, exact * (1 - 1e-12));
  EXPECT_LE(near.loss, 1.01 * exact);
}

TEST(Allocate, TakesWhatLosesNothing) {
  // losses of nothing at all, and a choice that is worse in both
  const Items items = {{{8, 0}, {4, 0}}, {{6, 1}, {9, 2}}};
  EXPECT_EQ(allocate(items, 1000), (std::vector<size_t>{1, 0}));
}

TEST(Allocate, RefusesWhatDoesNotFit) {
  const Items items = {{{8, 1}, {4, 2}}, {{6, 1}}};
  EXPECT_EQ(allocate(items, 10), (std::vector<size_t>{1, 0}));
  EXPECT_THROW(allocate(items, 9), Error);
  EXPECT_THROW(allocate(Items{{}}, 9), Error);
  EXPECT_TRUE(allocate(Items{}, 0).empty());
}

}  // namespace
}  // namespace nibble::models
