// SPDX-License-Identifier: Apache-2.0
// Patterns as tokenizer files write them (the syntax of Oniguruma), run by PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace nibble::models {

/// Immutable and thread safe.
class Regex {
 public:
  /// Throws Error with the place in the pattern.
  explicit Regex(std::string_view pattern);
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  /// The pattern that matches `text` and nothing else.
  static std::string quoted(std::string_view text);

 private:
  friend class RegexScan;
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

/// Working memory of one thread for any number of patterns and texts.
class RegexScan {
 public:
  RegexScan();
  ~RegexScan();

  struct Match {
    size_t begin, end;
  };
  /// The leftmost match in `text` (valid UTF-8) at or after `from`; false when there is none. An empty match counts.
  /// Throws Error when the pattern takes more steps than any sensible text needs.
  bool find(const Regex& regex, std::string_view text, size_t from, Match& match);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Oniguruma's syntax in PCRE2's. Throws Error for what has no counterpart.
std::string translate_pattern(std::string_view pattern);

}  // namespace nibble::models
