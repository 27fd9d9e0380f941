// SPDX-License-Identifier: Apache-2.0
// Byte-pair encoding in its three dialects: a list of merges (GPT-2), scores (SentencePiece), ranks (tiktoken). All of
// them become one table of pairs, filled when the vocabulary is read, so that merging looks at ids only.
#include <algorithm>

#include "models/text/byte_alphabet.h"
#include "models/text/subword.h"
#include "models/text/utf8.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

constexpr int32_t no_token = -1;

using Type = Vocabulary::Type;
bool mergeable(Type type) { return type == Type::normal || type == Type::user_defined || type == Type::unused; }

uint32_t packed(std::string_view character) {
  uint32_t out = 0;
  for (char byte : character) out = out << 8 | static_cast<uint8_t>(byte);
  return out;
}

size_t front_length(std::string_view text) {
  return static_cast<uint8_t>(text[0]) < 0x80 ? 1 : utf8_front(text).length;
}

class Bpe final : public SubwordModel {
 public:
  Bpe(const Vocabulary& vocabulary, BpeOptions options, size_t pairs)
      : vocabulary_(vocabulary), options_(std::move(options)), pairs_(pairs), limit_(vocabulary.size()) {
    bytes_.fill(no_token);
  }

  void add_merges(const std::vector<Merge>& merges) {
    if (options_.byte_level)
      for (size_t byte = 0; byte < 256; ++byte) bytes_[byte] = vocabulary_.find(ByteAlphabet::get().spelling[byte]);
    for (size_t i = 0; i < merges.size(); ++i)
      pairs_.add(merges[i].left, merges[i].right, static_cast<uint32_t>(i), merges[i].merged);
    for (int32_t id = 0; id < limit_; ++id) add_characters(id, false);
    for (const Merge& merge : merges) boundaries_.add_token(vocabulary_.text(merge.merged));
  }

  void add_scores(const std::vector<float>& scores, const Trie* frozen) {
    frozen_ = frozen;
    std::vector<float> order(scores);
    std::sort(order.begin(), order.end(), std::greater<>());
    order.erase(std::unique(order.begin(), order.end()), order.end());
    // A character that only stands inside tokens gets an id above the vocabulary.
    for (int32_t id = 0; id < vocabulary_.size(); ++id) add_characters(id, true);
    for (int32_t id = 0; id < vocabulary_.size(); ++id) {
      const std::string_view text = vocabulary_.text(id);
      if (!mergeable(vocabulary_.type(id))) continue;
      boundaries_.add_token(text);
      const float score = scores[static_cast<size_t>(id)];
      const auto rank = std::lower_bound(order.begin(), order.end(), score, std::greater<>()) - order.begin();
      if (vocabulary_.type(id) == Type::unused) has_unused_ = true;
      for (size_t at = text.empty() ? 0 : front_length(text); at < text.size(); at += front_length(text.substr(at)))
        add_pair(part(text.substr(0, at)), part(text.substr(at)), static_cast<uint32_t>(rank), id);
    }
  }

  void add_ranks(int32_t ranks) {
    for (int32_t id = 0; id < ranks; ++id)
      if (vocabulary_.text(id).size() == 1) bytes_[static_cast<uint8_t>(vocabulary_.text(id)[0])] = id;
    for (int32_t id = 0; id < ranks; ++id) {
      const std::string_view text = vocabulary_.text(id);
      for (size_t at = 1; at < text.size(); ++at) {
        const int32_t left = vocabulary_.find(text.substr(0, at)), right = vocabulary_.find(text.substr(at));
        if (left < ranks && right < ranks) add_pair(left, right, static_cast<uint32_t>(id), id);
      }
    }
    raw_ = true;
  }

  void encode(std::string_view word, SubwordScratch& scratch, std::vector<int32_t>& out) const override {
    if (options_.whole_words && whole_word(word, scratch.spelled, out)) return;
    auto& symbols = scratch.merger.symbols;
    symbols.clear();
    if (options_.byte_level || raw_) {
      for (size_t i = 0; i < word.size(); ++i)
        symbols.push_back({bytes_[static_cast<uint8_t>(word[i])], static_cast<uint32_t>(i), 0, 0});
    } else if (scored_) {
      scored_symbols(word, symbols);
    } else {
      merged_symbols(word, scratch.spelled, symbols);
    }
    scratch.merger.merge(pairs_);
    for (const Symbol& symbol : symbols) {
      if (symbol.id >= 0 && symbol.id < limit_)
        put(symbol.id, out);
      else if (scored_)
        spell(word, symbol, out);
    }
  }

  size_t separable(std::string_view text) const override {
    if (options_.byte_level || raw_ || frozen_ || !options_.prefix.empty() || !options_.suffix.empty() ||
        options_.whole_words)
      return text.size();
    return boundaries_.next(text);
  }

  ByteFallback fallback;
  bool scored_ = false;

 private:
  void add_pair(int32_t left, int32_t right, uint32_t rank, int32_t merged) {
    if (left >= 0 && right >= 0) pairs_.add(left, right, rank, merged);
  }

  void add_characters(int32_t id, bool inside) {
    // Without scores a user-defined token is one that the model does not know, and never stands in a word.
    if (!mergeable(vocabulary_.type(id)) || (!inside && vocabulary_.type(id) == Type::user_defined)) return;
    const std::string_view text = vocabulary_.text(id);
    for (size_t at = 0; at < text.size();) {
      const size_t length = front_length(text.substr(at));
      if (length == text.size())
        characters_[packed(text)] = id;
      else if (!inside)
        return;
      else if (characters_.try_emplace(packed(text.substr(at, length)), next_id_).second)
        ++next_id_;
      at += length;
    }
  }

  int32_t character(std::string_view text) const {
    const auto found = characters_.find(packed(text));
    return found == characters_.end() ? no_token : found->second;
  }

  int32_t part(std::string_view text) const {
    if (front_length(text) == text.size()) return character(text);
    const int32_t id = vocabulary_.find(text);
    return id >= 0 && mergeable(vocabulary_.type(id)) ? id : no_token;
  }

  bool whole_word(std::string_view word, std::string& spelled, std::vector<int32_t>& out) const {
    if (word.size() > 1024) return false;
    if (options_.byte_level) {
      spelled.clear();
      for (char byte : word) spelled += ByteAlphabet::get().spelling[static_cast<uint8_t>(byte)];
      word = spelled;
    }
    const int32_t id = vocabulary_.find(word);
    if (id < 0 || !mergeable(vocabulary_.type(id)) || vocabulary_.type(id) == Type::user_defined) return false;
    out.push_back(id);
    return true;
  }

  void scored_symbols(std::string_view word, std::vector<Symbol>& symbols) const {
    for (size_t at = 0; at < word.size();) {
      size_t length = 0;
      int32_t id = no_token;
      if (frozen_)
        if (const Trie::Match own = frozen_->longest(word.substr(at)); own.length > 0) {
          length = own.length;
          id = frozen_id(own.value);
        }
      if (length == 0) {
        length = front_length(word.substr(at));
        id = character(word.substr(at, length));
      }
      symbols.push_back({id, static_cast<uint32_t>(at), 0, 0});
      at += length;
    }
  }

  // Frozen symbols carry ids below -1, which no pair has.
  static int32_t frozen_id(int32_t id) { return -2 - id; }

  void spell(std::string_view word, const Symbol& symbol, std::vector<int32_t>& out) const {
    if (symbol.id < no_token) {
      out.push_back(-2 - symbol.id);
      return;
    }
    const std::string_view one = word.substr(symbol.at, front_length(word.substr(symbol.at)));
    if (options_.byte_fallback && fallback.covers(one)) {
      fallback.append(one, out);
      return;
    }
    NIBBLE_CHECK(options_.unknown >= 0 || !options_.unknown_required, vocabulary_.file,
                 ": the vocabulary has neither a token nor byte tokens for '", one, "', and no unknown token");
    if (options_.unknown >= 0 && !(options_.fuse_unknown && !out.empty() && out.back() == options_.unknown))
      out.push_back(options_.unknown);
  }

  /// A merge may end in a token that is not to be used; it falls apart as it was put together.
  void put(int32_t id, std::vector<int32_t>& out) const {
    if (!has_unused_ || vocabulary_.type(id) != Type::unused) {
      out.push_back(id);
      return;
    }
    split_unused(id, out);
  }
  void split_unused(int32_t id, std::vector<int32_t>& out) const;

  void merged_symbols(std::string_view word, std::string& spelled, std::vector<Symbol>& symbols) const {
    int32_t pending = no_token;
    size_t pending_at = 0;
    const auto flush = [&] {
      if (pending >= 0) symbols.push_back({pending, static_cast<uint32_t>(pending_at), 0, 0});
      pending = no_token;
    };
    for (size_t at = 0; at < word.size();) {
      const size_t length = front_length(word.substr(at));
      std::string_view one = word.substr(at, length);
      int32_t id = no_token;
      const bool first = at == 0, last = at + length == word.size();
      if ((!first && !options_.prefix.empty()) || (last && !options_.suffix.empty())) {
        spelled.assign(first ? "" : options_.prefix).append(one).append(last ? options_.suffix : "");
        one = spelled;
        id = vocabulary_.find(one);
        if (id >= 0 && !mergeable(vocabulary_.type(id))) id = no_token;
      } else {
        id = character(one);
      }
      if (id >= 0) {
        flush();
        symbols.push_back({id, static_cast<uint32_t>(at), 0, 0});
      } else if (options_.byte_fallback && fallback.covers(one)) {
        for (char byte : one)
          symbols.push_back({fallback.tokens[static_cast<uint8_t>(byte)], static_cast<uint32_t>(at), 0, 0});
      } else if (options_.unknown >= 0) {
        if (!options_.fuse_unknown) flush();
        pending = options_.unknown;
        pending_at = at;
      }
      at += length;
    }
    flush();
  }

  const Vocabulary& vocabulary_;
  BpeOptions options_;
  PairTable pairs_;
  int32_t limit_;
  int32_t next_id_ = limit_;
  std::array<int32_t, 256> bytes_{};
  std::unordered_map<uint32_t, int32_t> characters_;
  SpaceBoundaries boundaries_;
  const Trie* frozen_ = nullptr;
  bool raw_ = false, has_unused_ = false;
};

void Bpe::split_unused(int32_t id, std::vector<int32_t>& out) const {
  // Encoding the text of the token without the token itself repeats the merges that led to it.
  const std::string_view text = vocabulary_.text(id);
  const PairTable::Entry* best = nullptr;
  size_t best_at = 0;
  for (size_t at = front_length(text); at < text.size(); at += front_length(text.substr(at))) {
    const PairTable::Entry* entry = pairs_.find(part(text.substr(0, at)), part(text.substr(at)));
    if (entry && entry->merged == id && !best) best = entry, best_at = at;
  }
  if (!best) {
    Symbol symbol{no_token, 0, 0, 0};
    spell(text, symbol, out);
    return;
  }
  for (const std::string_view side : {text.substr(0, best_at), text.substr(best_at)}) {
    const int32_t half = part(side);
    if (half >= 0 && half < limit_)
      put(half, out);
    else
      spell(side, {no_token, 0, 0, 0}, out);
  }
}

void read_fallback(const Vocabulary& vocabulary, ByteFallback& fallback) {
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    if (vocabulary.type(id) != Type::byte) continue;
    if (const int byte = spelled_byte(vocabulary.text(id)); byte >= 0) fallback.tokens[static_cast<size_t>(byte)] = id;
  }
}

}  // namespace

void SpaceBoundaries::add_token(std::string_view text) {
  for (size_t at = text.find(mark, 1); at != std::string_view::npos; at = text.find(mark, at + 1))
    joined_[static_cast<uint8_t>(text[at - 1])] = true;
}

size_t SpaceBoundaries::next(std::string_view text) const {
  for (size_t at = text.find(mark, 1); at != std::string_view::npos; at = text.find(mark, at + 1))
    if (!joined_[static_cast<uint8_t>(text[at - 1])]) return at;
  return text.size();
}

bool ByteFallback::covers(std::string_view text) const {
  return std::all_of(text.begin(), text.end(), [&](char byte) { return tokens[static_cast<uint8_t>(byte)] >= 0; });
}

void ByteFallback::append(std::string_view text, std::vector<int32_t>& out) const {
  for (char byte : text) out.push_back(tokens[static_cast<uint8_t>(byte)]);
}

std::unique_ptr<SubwordModel> make_bpe(const Vocabulary& vocabulary, BpeOptions options,
                                       const std::vector<Merge>& merges) {
  auto out = std::make_unique<Bpe>(vocabulary, std::move(options), merges.size());
  read_fallback(vocabulary, out->fallback);
  out->add_merges(merges);
  return out;
}

std::unique_ptr<SubwordModel> make_scored_bpe(const Vocabulary& vocabulary, BpeOptions options,
                                              const std::vector<float>& scores, const Trie* frozen) {
  auto out = std::make_unique<Bpe>(vocabulary, std::move(options), 8 * scores.size());
  read_fallback(vocabulary, out->fallback);
  out->scored_ = true;
  out->add_scores(scores, frozen);
  return out;
}

std::unique_ptr<SubwordModel> make_ranked_bpe(const Vocabulary& vocabulary, int32_t ranks, bool whole_words) {
  BpeOptions options;
  options.whole_words = whole_words;
  auto out = std::make_unique<Bpe>(vocabulary, options, 6 * static_cast<size_t>(ranks));
  out->add_ranks(ranks);
  return out;
}

}  // namespace nibble::models
