// SPDX-License-Identifier: Apache-2.0
// Models that take the longest token first.
#include "models/text/subword.h"
#include "models/text/unicode.h"

namespace nibble::models {

namespace {

bool usable(Vocabulary::Type type) {
  return type == Vocabulary::Type::normal || type == Vocabulary::Type::user_defined || type == Vocabulary::Type::unused;
}

class WordPiece final : public SubwordModel {
 public:
  WordPiece(const Vocabulary& vocabulary, const WordPieceOptions& options) : options_(options) {
    for (int32_t id = 0; id < vocabulary.size(); ++id) {
      const std::string_view text = vocabulary.text(id);
      if (!usable(vocabulary.type(id))) continue;
      const bool first = text.starts_with(options.first);
      if (first) first_.add(text.substr(options.first.size()), id);
      // With a mark on the first parts, the others carry none.
      if (text.starts_with(options.prefix) && (options.first.empty() || !first))
        rest_.add(text.substr(options.prefix.size()), id);
    }
  }

  void encode(std::string_view word, SubwordScratch&, std::vector<int32_t>& out) const override {
    const size_t before = out.size();
    size_t characters = 0;
    for (char byte : word) characters += (static_cast<uint8_t>(byte) & 0xC0) != 0x80;
    bool known = characters <= options_.longest_word;
    for (size_t at = 0; known && at < word.size();) {
      const Trie::Match match = (at == 0 ? first_ : rest_).longest(word.substr(at));
      known = match.length > 0;
      if (known) out.push_back(match.value);
      at += match.length;
    }
    if (known) return;
    out.resize(before);
    if (options_.unknown >= 0) out.push_back(options_.unknown);
  }

 private:
  WordPieceOptions options_;
  Trie first_, rest_;
};

class WordLevel final : public SubwordModel {
 public:
  WordLevel(const Vocabulary& vocabulary, int32_t unknown) : vocabulary_(vocabulary), unknown_(unknown) {}
  void encode(std::string_view word, SubwordScratch&, std::vector<int32_t>& out) const override {
    int32_t id = vocabulary_.find(word);
    if (id < 0 || !usable(vocabulary_.type(id))) id = unknown_;
    if (id >= 0) out.push_back(id);
  }

 private:
  const Vocabulary& vocabulary_;
  int32_t unknown_;
};

class Greedy final : public SubwordModel {
 public:
  Greedy(const std::vector<std::string>& texts, int32_t unknown) : unknown_(unknown) {
    for (size_t id = 0; id < texts.size(); ++id)
      if (!texts[id].empty()) trie_.add(texts[id], static_cast<int32_t>(id));
  }
  void encode(std::string_view word, SubwordScratch&, std::vector<int32_t>& out) const override {
    while (!word.empty()) {
      const Trie::Match match = trie_.longest(word);
      if (match.length > 0)
        out.push_back(match.value);
      else if (unknown_ >= 0)
        out.push_back(unknown_);
      word.remove_prefix(match.length > 0 ? match.length : 1);
    }
  }

 private:
  Trie trie_;
  int32_t unknown_;
};

}  // namespace

std::unique_ptr<SubwordModel> make_wordpiece(const Vocabulary& vocabulary, const WordPieceOptions& options) {
  return std::make_unique<WordPiece>(vocabulary, options);
}
std::unique_ptr<SubwordModel> make_wordlevel(const Vocabulary& vocabulary, int32_t unknown) {
  return std::make_unique<WordLevel>(vocabulary, unknown);
}
std::unique_ptr<SubwordModel> make_greedy(const std::vector<std::string>& texts, int32_t unknown) {
  return std::make_unique<Greedy>(texts, unknown);
}

}  // namespace nibble::models
