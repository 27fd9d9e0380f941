// SPDX-License-Identifier: Apache-2.0
// SentencePiece's compiled replacement rules: a double-array trie of texts and a pool of what they become.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::models {

/// Immutable and thread safe. Every index read from the blob is checked when it is used.
class Charsmap {
 public:
  Charsmap() = default;
  /// Throws Error when the blob's sizes do not agree.
  explicit Charsmap(std::string_view blob);

  bool empty() const { return units_.empty(); }
  struct Match {
    size_t length = 0;  ///< 0: no rule
    std::string_view replacement;
  };
  Match longest(std::string_view text) const { return find(text, false); }
  Match shortest(std::string_view text) const { return find(text, true); }

 private:
  Match find(std::string_view text, bool first) const;
  std::vector<uint32_t> units_;
  std::string pool_;
};

}  // namespace nibble::models
