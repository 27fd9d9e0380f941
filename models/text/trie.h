// SPDX-License-Identifier: Apache-2.0
// A set of byte strings with a value each, walked byte by byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace nibble::models {

/// Immutable after the last add(); then thread safe.
class Trie {
 public:
  static constexpr uint32_t root = 0, none = UINT32_MAX;

  Trie();
  /// A later value for the same text replaces the earlier. Throws Error when the texts take more than 2^24 nodes.
  void add(std::string_view text, int32_t value);
  /// The child of a node; none where there is none.
  uint32_t step(uint32_t node, char byte) const {
    const uint32_t key = node << 8 | static_cast<uint8_t>(byte);
    for (size_t at = slot(key);; at = (at + 1) & mask_) {
      if (slots_[at].child == none || slots_[at].key == key) return slots_[at].child;
    }
  }
  /// -1: no text ends here.
  int32_t value(uint32_t node) const { return values_[node]; }

  struct Match {
    size_t length = 0;
    int32_t value = -1;
  };
  /// The longest text that `text` begins with.
  Match longest(std::string_view text) const;
  bool empty() const { return values_.size() == 1; }

 private:
  struct Slot {
    uint32_t key, child;
  };
  size_t slot(uint32_t key) const { return static_cast<size_t>(key * uint64_t{0x9E3779B97F4A7C15} >> 32) & mask_; }
  void grow();
  std::vector<Slot> slots_;
  std::vector<int32_t> values_;
  size_t mask_;
};

}  // namespace nibble::models
