// SPDX-License-Identifier: Apache-2.0
// What happens to a text before it is cut into words.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "models/text/charsmap.h"
#include "models/text/regex.h"
#include "models/text/trie.h"
#include "models/text/unicode.h"

namespace nibble::models {

/// SentencePiece's own normaliser.
struct SentencePieceRules {
  Charsmap charsmap;
  Trie user_defined;  ///< texts that stay as they are
  bool add_dummy_prefix = true, remove_extra_spaces = true, escape_spaces = true, space_as_suffix = false;
  bool replace_invalid = true;  ///< bytes that are not UTF-8 become U+FFFD
};

struct BertRules {
  bool clean_text = true, handle_ideographs = true, strip_accents = true, lowercase = true;
};

struct ReplaceRule {
  Regex pattern;
  std::string literal;  ///< not empty: what the pattern matches
  std::string content;
};

struct StripRule {
  bool left, right;
};

enum class SimpleRule { lowercase, strip_accents, byte_level, nmt };

/// A list of steps. Immutable and thread safe. Any bytes are accepted.
class Normalizer {
 public:
  struct Prepend {
    std::string text;
  };
  struct Graphemes {
    Charsmap charsmap;  ///< applied to grapheme clusters as Hugging Face's "Precompiled" does
  };
  using Step = std::variant<NormalForm, SimpleRule, BertRules, StripRule, Prepend, ReplaceRule, Graphemes,
                            std::shared_ptr<const SentencePieceRules>>;

  void add(Step step);
  bool empty() const { return steps_.empty(); }
  /// In place.
  void apply(std::string& text) const;

 private:
  std::vector<Step> steps_;
};

}  // namespace nibble::models
