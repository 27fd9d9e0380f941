// SPDX-License-Identifier: Apache-2.0
// Cuts text into the words inside which byte-level BPE merges, by the patterns that tokenizer.ggml.pre names.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::models {

/// Immutable and thread safe.
class PreTokenizer {
 public:
  /// Throws Error naming the known names.
  explicit PreTokenizer(std::string_view name);
  ~PreTokenizer();

  /// Appends views into `text` that cover it without gaps. Invalid bytes are words of their own. Throws Error when a
  /// pattern takes more steps than any sensible text needs.
  void split(std::string_view text, std::vector<std::string_view>& words) const;
  bool prefers_whole_words() const;  ///< a word that is a token is taken as it is, whatever the merges say
  bool adds_bos() const;             ///< unless the file says otherwise

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace nibble::models
