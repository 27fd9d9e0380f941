// SPDX-License-Identifier: Apache-2.0
// Where intermediate values live: values whose lifetimes don't meet may share memory.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace nibble {

/// A value's size and the first and last step that touch it, both included.
struct Lifetime {
  size_t bytes = 0;
  int first = 0, last = 0;
};

struct ArenaLayout {
  std::vector<size_t> offsets;  ///< per value, multiples of 64
  size_t bytes = 0;
};

/// Largest first, each into the tightest gap that is free for all of its lifetime.
ArenaLayout lay_out(std::span<const Lifetime> values);

}  // namespace nibble
