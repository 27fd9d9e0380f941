// SPDX-License-Identifier: Apache-2.0
// Cuts a text into the words inside which tokens are looked for.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "models/text/regex.h"

namespace nibble::models {

/// What becomes of the matches of a pattern.
enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

struct RegexSplit {
  Regex pattern;
  SplitBehavior behavior = SplitBehavior::isolated;
  bool invert = false;  ///< the gaps are the matches
};

/// Each character of a class is a match of its own.
struct ClassSplit {
  bool (*is)(uint32_t code_point);
  SplitBehavior behavior = SplitBehavior::isolated;
};

/// Runs of word characters and runs of others that are not white space.
struct WordSplit {};

struct MetaspaceSplit {
  enum class Prefix { always, first, never };
  std::string replacement;  ///< of a space; one character
  Prefix prefix = Prefix::always;
  bool split = true;
};

/// Puts a space before each word that does not begin with one.
struct SpacePrefix {};

/// Decimal digits in groups of three, counted from the right in each run.
struct DigitGroups {
  bool before_words_too = true;  ///< else runs that a letter follows stay as they are
};

/// Words of one thread, and the texts that some of them lie in.
struct Words {
  std::vector<std::string_view> list;
  std::deque<std::string> texts;
};

/// A list of steps, each of which cuts what the one before it left. Immutable and thread safe.
class PreTokenizer {
 public:
  using Step = std::variant<RegexSplit, ClassSplit, WordSplit, MetaspaceSplit, SpacePrefix, DigitGroups>;

  PreTokenizer() = default;
  /// By the name in tokenizer.ggml.pre. Throws Error naming the known names.
  explicit PreTokenizer(std::string_view name);

  void add(Step step);
  bool empty() const { return steps_.empty(); }
  /// `first`: the text stands at the beginning of what is encoded. Bytes that are not UTF-8 are words of their own.
  /// Throws Error when a pattern takes more steps than any sensible text needs.
  void split(std::string_view text, bool first, Words& words) const;
  /// The same; for steps that only cut.
  void split(std::string_view text, std::vector<std::string_view>& words) const;

 private:
  friend struct Cutter;
  std::vector<Step> steps_;
};

}  // namespace nibble::models
