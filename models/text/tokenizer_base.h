// SPDX-License-Identifier: Apache-2.0
// What the tokenizer kinds share: the vocabulary, tokens written out in the text, BOS and EOS.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/text/special_tokens.h"
#include "models/text/tokenizer.h"
#include "models/text/vocabulary.h"

namespace nibble::models {

class TokenizerBase : public Tokenizer {
 public:
  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options) const final;
  std::string piece(int32_t token, bool special) const final;
  int vocab() const final { return vocabulary_.size(); }
  std::string_view token_text(int32_t token) const final;
  bool is_control(int32_t token) const final;
  int32_t find(std::string_view token_text) const final;

 protected:
  explicit TokenizerBase(Vocabulary vocabulary);
  const Vocabulary& vocabulary() const { return vocabulary_; }
  /// Text without written-out tokens, not empty.
  virtual void encode_text(std::string_view text, std::vector<int32_t>& out) const = 0;
  /// The bytes of an ordinary token.
  virtual std::string plain_piece(std::string_view token_text) const = 0;

 private:
  void check_id(int32_t token) const;
  Vocabulary vocabulary_;
  SpecialTokens special_;
};

/// Remembers how short words of one text were encoded. Keeps views of the words.
class WordCache {
 public:
  explicit WordCache(size_t text_bytes) : slots_(text_bytes < 2048 ? 0 : 4096) {}
  /// Appends the tokens of a word that was seen before.
  bool replay(std::string_view word, std::vector<int32_t>& out) const;
  /// The tokens of `word` are those of `out` from `first` on.
  void remember(std::string_view word, const std::vector<int32_t>& out, size_t first);

 private:
  struct Slot {
    std::string_view word;
    uint32_t first = 0, count = 0;
  };
  size_t slot(std::string_view word) const;
  std::vector<Slot> slots_;
};

std::shared_ptr<const Tokenizer> make_bpe_tokenizer(const Gguf& gguf);
std::shared_ptr<const Tokenizer> make_spm_tokenizer(const Gguf& gguf);

}  // namespace nibble::models
