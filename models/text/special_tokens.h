// SPDX-License-Identifier: Apache-2.0
// Finds the tokens that are written out in a text before anything is merged.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "models/text/tokenizer.h"

namespace nibble::models {

/// A trie; the leftmost match wins, the longest of those that begin there. O(text x longest token) at worst.
class SpecialTokens {
 public:
  struct Flags {
    bool always = false;       ///< also found when the caller does not want control tokens parsed
    bool single_word = false;  ///< not inside of a word
    bool left = false, right = false;  ///< takes the white space on that side with it
  };

  SpecialTokens() { roots_.fill(-1); }
  /// The first token of a text stays.
  void add(std::string_view text, int32_t id, Flags flags);
  bool empty() const { return nodes_.empty(); }

  struct Match {
    size_t at;
    size_t length;
    int32_t id;
  };
  /// The first match at or after `from`; at == text.size() when there is none. In the rising ranges `plain` only tokens
  /// added with `always` match.
  Match next(std::string_view text, size_t from, bool only_always, std::span<const TextRange> plain = {}) const;

 private:
  struct Node {
    int32_t child = -1, sibling = -1, id = -1;
    char byte = 0;
    Flags flags;
  };
  int32_t child(int32_t node, char byte) const;
  std::array<int32_t, 256> roots_;
  std::vector<Node> nodes_;
};

}  // namespace nibble::models
