// SPDX-License-Identifier: Apache-2.0
// SentencePiece BPE: spaces are written as U+2581, the pair whose joined text has the highest score is joined first,
// and characters without a token fall back to byte tokens. Every pair of pieces that can become a token is put into a
// table when the vocabulary is read, so that merging looks at ids only.
#include <algorithm>
#include <array>
#include <unordered_map>

#include "models/io/gguf.h"
#include "models/text/merger.h"
#include "models/text/tokenizer_base.h"
#include "models/text/utf8.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

constexpr std::string_view space_mark = "\xE2\x96\x81";
constexpr int32_t no_token = -1;

class SpmTokenizer final : public TokenizerBase {
 public:
  SpmTokenizer(Vocabulary read, const std::vector<float>& scores, bool space_prefix)
      : TokenizerBase(std::move(read)), space_prefix_(space_prefix), pairs_(8 * scores.size()) {
    decode_drops_first_space_ = space_prefix;
    read_bytes();
    read_pairs(scores);
  }

  std::string_view kind() const override { return "llama"; }

 protected:
  void encode_text(std::string_view text, std::vector<int32_t>& out) const override {
    std::string marked(space_prefix_ ? space_mark : std::string_view());
    marked.reserve(text.size() * 3 / 2 + 8);
    for (char byte : text) {
      if (byte == ' ')
        marked += space_mark;
      else
        marked += byte;
    }
    Merger merger(pairs_);
    WordCache cache(marked.size());
    std::string_view rest = marked;
    while (!rest.empty()) {
      const std::string_view word = rest.substr(0, word_length(rest));
      rest.remove_prefix(word.size());
      if (cache.replay(word, out)) continue;
      const size_t first = out.size();
      merge_word(word, merger, out);
      cache.remember(word, out, first);
    }
  }

  std::string plain_piece(std::string_view token_text) const override {
    std::string out;
    while (!token_text.empty()) {
      const bool space = token_text.starts_with(space_mark);
      out += space ? ' ' : token_text[0];
      token_text.remove_prefix(space ? space_mark.size() : 1);
    }
    return out;
  }

 private:
  bool mergeable(int32_t id) const {
    const Vocabulary::Type type = vocabulary().type(id);
    return type == Vocabulary::Type::normal || type == Vocabulary::Type::user_defined ||
           type == Vocabulary::Type::unused;
  }

  void read_bytes() {
    byte_tokens_.fill(no_token);
    for (int32_t id = 0; id < vocabulary().size(); ++id) {
      if (vocabulary().type(id) != Vocabulary::Type::byte) continue;
      const std::string& text = vocabulary().text(id);
      const int byte = spelled_byte(text);
      NIBBLE_CHECK(byte >= 0, vocabulary().file, ": tokenizer.ggml.tokens: byte token ", id, " is '",
                   text.substr(0, 60), "'; expected <0x00> to <0xFF>");
      int32_t& token = byte_tokens_[static_cast<size_t>(byte)];
      NIBBLE_CHECK(token == no_token, vocabulary().file, ": tokenizer.ggml.tokens: byte tokens ", token, " and ", id,
                   " stand for the same byte");
      token = id;
    }
  }

  static uint32_t packed(std::string_view character) {
    uint32_t out = 0;
    for (char byte : character) out = out << 8 | static_cast<uint8_t>(byte);
    return out;
  }

  /// The token of one character, or an id above the vocabulary for one that only stands inside tokens.
  int32_t character(std::string_view text) const {
    const auto found = characters_.find(packed(text));
    return found == characters_.end() ? no_token : found->second;
  }

  void read_pairs(const std::vector<float>& scores) {
    std::vector<float> order(scores);
    std::sort(order.begin(), order.end(), std::greater<>());
    order.erase(std::unique(order.begin(), order.end()), order.end());
    int32_t next_id = vocabulary().size();
    for (int32_t id = 0; id < vocabulary().size(); ++id) {
      if (!mergeable(id)) continue;
      const std::string_view text = vocabulary().text(id);
      for (size_t at = 0; at < text.size();) {
        const size_t length = utf8_front(text.substr(at)).length;
        const std::string_view one = text.substr(at, length);
        if (length == text.size())
          characters_[packed(one)] = id;
        else if (characters_.try_emplace(packed(one), next_id).second)
          ++next_id;
        if (at > 0 && one == space_mark) joins_space_[static_cast<uint8_t>(text[at - 1])] = true;
        at += length;
      }
    }
    for (int32_t id = 0; id < vocabulary().size(); ++id) {
      if (!mergeable(id)) continue;
      const float score = scores[static_cast<size_t>(id)];
      const auto rank = std::lower_bound(order.begin(), order.end(), score, std::greater<>()) - order.begin();
      add_pairs(id, static_cast<uint32_t>(rank));
    }
  }

  int32_t part(std::string_view text) const {
    if (utf8_front(text).length == text.size()) return character(text);
    const int32_t id = vocabulary().find(text);
    return id >= 0 && mergeable(id) ? id : no_token;
  }

  void add_pairs(int32_t id, uint32_t rank) {
    const std::string_view text = vocabulary().text(id);
    for (size_t at = utf8_front(text).length; at < text.size(); at += utf8_front(text.substr(at)).length) {
      const int32_t left = part(text.substr(0, at)), right = part(text.substr(at));
      if (left >= 0 && right >= 0) pairs_.add(left, right, rank, id);
    }
  }

  /// Up to a space that no token can join to what stands before it: merging cannot cross such a place.
  size_t word_length(std::string_view text) const {
    for (size_t at = text.find(space_mark, 1); at != std::string_view::npos; at = text.find(space_mark, at + 1))
      if (!joins_space_[static_cast<uint8_t>(text[at - 1])]) return at;
    return text.size();
  }

  void merge_word(std::string_view word, Merger& merger, std::vector<int32_t>& out) const {
    merger.symbols.clear();
    for (size_t at = 0; at < word.size();) {
      const size_t length = utf8_front(word.substr(at)).length;
      merger.symbols.push_back({character(word.substr(at, length)), static_cast<uint32_t>(at), 0, 0});
      at += length;
    }
    merger.merge();
    for (const Symbol& symbol : merger.symbols) {
      if (symbol.id >= 0 && symbol.id < vocabulary().size())
        out.push_back(symbol.id);
      else
        spell(word.substr(symbol.at, utf8_front(word.substr(symbol.at)).length), out);
    }
  }

  void spell(std::string_view character, std::vector<int32_t>& out) const {
    const bool all = std::all_of(character.begin(), character.end(),
                                 [&](char byte) { return byte_tokens_[static_cast<uint8_t>(byte)] != no_token; });
    NIBBLE_CHECK(all || vocabulary().unknown >= 0, vocabulary().file,
                 ": the vocabulary has neither a token nor byte tokens for '", character, "', and no unknown token");
    if (!all)
      out.push_back(vocabulary().unknown);
    else
      for (char byte : character) out.push_back(byte_tokens_[static_cast<uint8_t>(byte)]);
  }

  bool space_prefix_;
  std::array<int32_t, 256> byte_tokens_{};
  std::array<bool, 256> joins_space_{};  ///< by the byte before the space
  std::unordered_map<uint32_t, int32_t> characters_;
  PairTable pairs_;
};

}  // namespace

std::shared_ptr<const Tokenizer> make_spm_tokenizer(const Gguf& gguf) {
  Vocabulary vocabulary = read_vocabulary(gguf, Vocabulary::Bos::by_default, 1, 2, 0);
  const std::vector<float> scores = read_scores(gguf, vocabulary);
  const bool space_prefix = read_flag(gguf, "tokenizer.ggml.add_space_prefix", true);
  return std::make_shared<SpmTokenizer>(std::move(vocabulary), scores, space_prefix);
}

}  // namespace nibble::models
