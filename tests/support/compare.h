// SPDX-License-Identifier: Apache-2.0
// Comparisons that say what was worst: EXPECT_TRUE(close(got, want, bound, "matmul 5x7x11", seed)).
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

namespace nibble::test {

inline constexpr double f32_epsilon = 0x1p-24;   ///< half a unit in the last place, relative
inline constexpr double f16_epsilon = 0x1p-11;
inline constexpr double bf16_epsilon = 0x1p-8;

/// Bound of a sum of k products accumulated in f32, any order.
inline double dot_bound(int64_t k, double max_a, double max_b) {
  return 2 * f32_epsilon * static_cast<double>(k + 1) * max_a * max_b;
}

template <class Range>
double max_abs(const Range& values) {
  double max = 0;
  for (auto v : values) max = std::max(max, std::fabs(static_cast<double>(v)));
  return max;
}

/// Every |got[i] - want[i]| <= bound(i); infinities must be equal, NaN must meet NaN.
template <class Got, class Want>
testing::AssertionResult close_each(const Got& got, const Want& want, const std::function<double(size_t)>& bound,
                                    const std::string& name, uint64_t seed = 0) {
  if (got.size() != want.size()) {
    return testing::AssertionFailure() << name << ": " << got.size() << " values, want " << want.size();
  }
  size_t worst = 0, failures = 0;
  double worst_ratio = -1;
  for (size_t i = 0; i < got.size(); ++i) {
    const double g = static_cast<double>(got[i]), w = static_cast<double>(want[i]);
    double error = std::fabs(g - w);
    if ((std::isnan(g) && std::isnan(w)) || g == w) error = 0;
    const bool bad = !(error <= bound(i));
    failures += bad;
    const double ratio =
        std::isnan(error) ? std::numeric_limits<double>::infinity() : error / std::max(bound(i), 1e-300);
    if (ratio > worst_ratio) worst_ratio = ratio, worst = i;
  }
  if (failures == 0) return testing::AssertionSuccess();
  return testing::AssertionFailure() << name << ": " << failures << " of " << got.size()
                                     << " beyond the bound; worst at " << worst << ": got " << got[worst] << ", want "
                                     << want[worst] << ", bound " << bound(worst) << ", seed " << seed;
}

template <class Got, class Want>
testing::AssertionResult close(const Got& got, const Want& want, double bound, const std::string& name,
                               uint64_t seed = 0) {
  return close_each(got, want, [bound](size_t) { return bound; }, name, seed);
}

/// Sum of squared errors over sum of squares.
template <class Got, class Want>
double nmse(const Got& got, const Want& want) {
  double error = 0, power = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double w = static_cast<double>(want[i]), e = static_cast<double>(got[i]) - w;
    error += e * e;
    power += w * w;
  }
  return error == 0 ? 0 : error / power;
}

template <class Got, class Want>
testing::AssertionResult nmse_below(const Got& got, const Want& want, double bound, const std::string& name,
                                    uint64_t seed = 0) {
  const double found = got.size() == want.size() ? nmse(got, want) : std::numeric_limits<double>::infinity();
  if (found <= bound) return testing::AssertionSuccess();
  return testing::AssertionFailure() << name << ": NMSE " << found << ", bound " << bound << ", " << got.size()
                                     << " of " << want.size() << " values, seed " << seed;
}

/// Bit for bit, NaN payloads and signs of zero included.
template <class Got, class Want>
testing::AssertionResult same_bits(const Got& got, const Want& want, const std::string& name, uint64_t seed = 0) {
  if (got.size() != want.size()) {
    return testing::AssertionFailure() << name << ": " << got.size() << " values, want " << want.size();
  }
  using T = std::remove_cvref_t<decltype(got[0])>;
  static_assert(std::is_same_v<T, std::remove_cvref_t<decltype(want[0])>>);
  size_t first = got.size(), failures = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::memcmp(&got[i], &want[i], sizeof(T)) == 0) continue;
    first = std::min(first, i);
    ++failures;
  }
  if (failures == 0) return testing::AssertionSuccess();
  auto print = [](const T& v) -> std::string {
    if constexpr (std::is_arithmetic_v<T>) {
      char text[40];
      std::snprintf(text, sizeof text, "%.9g", static_cast<double>(v));
      return text;
    } else {
      return "0x" + std::to_string(static_cast<unsigned>(v));
    }
  };
  return testing::AssertionFailure() << name << ": " << failures << " of " << got.size() << " differ, the first at "
                                     << first << ": got " << print(got[first]) << ", want " << print(want[first])
                                     << ", bound 0, seed " << seed;
}

}  // namespace nibble::test
