// SPDX-License-Identifier: Apache-2.0
// Choosing one of several for each of many, under a limit of size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace nibble::models {

struct Choice {
  uint64_t bytes = 0;
  double loss = 0;
};

/// The index of one choice of each item, with the least sum of losses among those whose bytes together are at most
/// `budget`; exact while no more than `states` partial sums are worth following at a time, else near it. Throws Error
/// when even the smallest are too large, and for an item without choices.
std::vector<size_t> allocate(std::span<const std::vector<Choice>> items, uint64_t budget, size_t states = 5000);

}  // namespace nibble::models
