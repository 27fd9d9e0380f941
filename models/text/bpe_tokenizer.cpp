// SPDX-License-Identifier: Apache-2.0
// Byte-level BPE as GPT-2 introduced it: bytes are spelled as printable characters, words are cut by a pattern, and
// inside a word the pair that stands first in the list of merges is joined first.
#include <array>

#include "models/io/gguf.h"
#include "models/text/merger.h"
#include "models/text/pretokenizer.h"
#include "models/text/tokenizer_base.h"
#include "models/text/utf8.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

/// Printable Latin-1 bytes stand for themselves; the others, in order, for U+0100 and up.
struct ByteAlphabet {
  std::array<std::string, 256> spelling;
  std::array<int, 0x144> byte_of{};  ///< of a code point; -1: none

  ByteAlphabet() {
    byte_of.fill(-1);
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
      const uint32_t code = printable ? byte : next++;
      byte_of[code] = static_cast<int>(byte);
      if (code < 0x80)
        spelling[byte] = std::string(1, static_cast<char>(code));
      else
        spelling[byte] = {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
    }
  }
};

const ByteAlphabet& alphabet() {
  static const ByteAlphabet instance;
  return instance;
}

class BpeTokenizer final : public TokenizerBase {
 public:
  BpeTokenizer(Vocabulary vocabulary, std::unique_ptr<const PreTokenizer> pre, const std::vector<Merge>& merges)
      : TokenizerBase(std::move(vocabulary)), pre_(std::move(pre)), pairs_(merges.size()) {
    for (size_t byte = 0; byte < 256; ++byte) byte_tokens_[byte] = this->vocabulary().find(alphabet().spelling[byte]);
    for (size_t i = 0; i < merges.size(); ++i)
      pairs_.add(merges[i].left, merges[i].right, static_cast<uint32_t>(i), merges[i].merged);
  }

  std::string_view kind() const override { return "gpt2"; }

 protected:
  void encode_text(std::string_view text, std::vector<int32_t>& out) const override {
    std::vector<std::string_view> words;
    pre_->split(text, words);
    Merger merger(pairs_);
    WordCache cache(text.size());
    std::string spelled;
    for (std::string_view word : words) {
      if (cache.replay(word, out)) continue;
      const size_t first = out.size();
      if (!whole_word(word, spelled, out)) merge_word(word, merger, out);
      cache.remember(word, out, first);
    }
  }

  std::string plain_piece(std::string_view token_text) const override {
    std::string out;
    while (!token_text.empty()) {
      const size_t length = utf8_front(token_text).length;
      const auto lead = static_cast<uint8_t>(token_text[0]);
      uint32_t code = lead;
      if (length == 2) code = (lead & 0x1Fu) << 6 | (static_cast<uint8_t>(token_text[1]) & 0x3Fu);
      const int byte = length <= 2 && code < alphabet().byte_of.size() ? alphabet().byte_of[code] : -1;
      if (byte >= 0)
        out += static_cast<char>(byte);
      else
        out += token_text.substr(0, length);
      token_text.remove_prefix(length);
    }
    return out;
  }

 private:
  bool whole_word(std::string_view word, std::string& spelled, std::vector<int32_t>& out) const {
    if (!pre_->prefers_whole_words() || word.size() > 1024) return false;
    spelled.clear();
    for (char byte : word) spelled += alphabet().spelling[static_cast<uint8_t>(byte)];
    const int32_t id = vocabulary().find(spelled);
    if (id >= 0) out.push_back(id);
    return id >= 0;
  }

  void merge_word(std::string_view word, Merger& merger, std::vector<int32_t>& out) const {
    merger.symbols.clear();
    for (size_t i = 0; i < word.size(); ++i)
      merger.symbols.push_back({byte_tokens_[static_cast<uint8_t>(word[i])], static_cast<uint32_t>(i), 0, 0});
    merger.merge();
    // A byte that the vocabulary does not have has no token; the tokenizers of the models leave it out as well.
    for (const Symbol& symbol : merger.symbols)
      if (symbol.id >= 0) out.push_back(symbol.id);
  }

  std::unique_ptr<const PreTokenizer> pre_;
  PairTable pairs_;
  std::array<int32_t, 256> byte_tokens_{};
};

}  // namespace

std::shared_ptr<const Tokenizer> make_bpe_tokenizer(const Gguf& gguf) {
  constexpr std::string_view key = "tokenizer.ggml.pre";
  const std::string name = read_text(gguf, key, "default");
  std::unique_ptr<const PreTokenizer> pre;
  try {
    pre = std::make_unique<const PreTokenizer>(name.substr(0, 60));
  } catch (const Error& error) {
    fail(gguf.path(), ": ", key, ": ", error.what());
  }
  const auto bos = pre->adds_bos() ? Vocabulary::Bos::by_default : Vocabulary::Bos::not_by_default;
  Vocabulary vocabulary = read_vocabulary(gguf, bos, -1, -1, -1);
  const std::vector<Merge> merges = read_merges(gguf, vocabulary);
  return std::make_shared<BpeTokenizer>(std::move(vocabulary), std::move(pre), merges);
}

}  // namespace nibble::models
