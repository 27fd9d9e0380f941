// SPDX-License-Identifier: Apache-2.0
// Seeded random numbers that are the same on every platform (splitmix64).
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace nibble::test {

class Random {
 public:
  explicit Random(uint64_t seed) : seed_(seed), state_(seed) {}

  uint64_t seed() const { return seed_; }  ///< for failure messages
  uint64_t bits() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  /// [low, high)
  float uniform(float low = -1, float high = 1) {
    return low + (high - low) * static_cast<float>(static_cast<double>(bits() >> 40) * 0x1p-24);
  }
  /// Mean 0, deviation 1 (Box and Muller).
  float normal() {
    const double u = (static_cast<double>(bits() >> 11) + 0.5) * 0x1p-53;
    const double v = static_cast<double>(bits() >> 11) * 0x1p-53;
    return static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v));
  }
  /// low .. high, both included
  int64_t integer(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(bits() % static_cast<uint64_t>(high - low + 1));
  }
  std::vector<float> floats(int64_t count, float low = -1, float high = 1) {
    std::vector<float> out(static_cast<size_t>(count));
    for (float& x : out) x = uniform(low, high);
    return out;
  }
  std::vector<float> normals(int64_t count) {
    std::vector<float> out(static_cast<size_t>(count));
    for (float& x : out) x = normal();
    return out;
  }

 private:
  uint64_t seed_, state_;
};

}  // namespace nibble::test
