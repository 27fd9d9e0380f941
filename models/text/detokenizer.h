// SPDX-License-Identifier: Apache-2.0
// From the text of a token to the bytes it stands for.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "models/text/regex.h"

namespace nibble::models {

/// A list of steps. Immutable and thread safe.
class Detokenizer {
 public:
  struct ByteLevel {};
  struct ByteFallback {};
  struct Replace {
    std::string from, to;
  };
  struct Metaspace {
    std::string replacement;
    bool drops_first;  ///< the first token stands without it
  };
  struct WordPiece {
    std::string prefix;
    bool cleanup;
  };
  struct WordEnd {
    std::string suffix;
  };
  struct Strip {
    std::string content;
    size_t start, stop;
  };
  struct SpaceBefore {};  ///< all but the first
  using Step = std::variant<ByteLevel, ByteFallback, Replace, Metaspace, WordPiece, WordEnd, Strip, SpaceBefore>;

  void add(Step step);
  /// What is added from here on works on the whole text.
  void fuse() { fused_ = true; }

  /// One token. In the middle of a text it depends on nothing else.
  std::string piece(std::string_view token, bool first, bool last) const;
  /// The bytes to drop from the front of the first piece.
  size_t dropped(std::string_view first_piece) const;
  /// What the steps after fuse() make of the whole text, but for what dropped() says.
  void finish(std::string& text) const;

 private:
  std::vector<Step> steps_, whole_;
  bool fused_ = false;
};

}  // namespace nibble::models
