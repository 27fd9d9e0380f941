// SPDX-License-Identifier: Apache-2.0
// Kudo (2018), "Subword Regularization": the segmentation of highest probability under a unigram language model.
#include <algorithm>
#include <cmath>

#include "models/text/subword.h"
#include "models/text/utf8.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

constexpr int32_t not_reached = -2;
constexpr double unknown_penalty = 10;

class Unigram final : public SubwordModel {
 public:
  Unigram(const Vocabulary& vocabulary, const UnigramOptions& options, const std::vector<double>& scores)
      : vocabulary_(vocabulary), options_(options), scores_(scores) {
    using Type = Vocabulary::Type;
    double lowest = INFINITY, highest = -INFINITY;
    for (int32_t id = 0; id < vocabulary.size(); ++id) {
      const Type type = vocabulary.type(id);
      if (type == Type::normal || !options.user_defined_first) {
        lowest = std::min(lowest, scores_[static_cast<size_t>(id)]);
        highest = std::max(highest, scores_[static_cast<size_t>(id)]);
      }
      const int byte = spelled_byte(vocabulary.text(id));
      if (byte >= 0 && type == Type::byte)
        fallback_.tokens[static_cast<size_t>(byte)] = id;
      if (type == Type::normal || type == Type::user_defined) {
        trie_.add(vocabulary.text(id), id);
        boundaries_.add_token(vocabulary.text(id));
      }
    }
    if (!std::isfinite(lowest)) lowest = highest = 0;
    unknown_score_ = lowest - unknown_penalty;
    if (options.user_defined_first)
      for (int32_t id = 0; id < vocabulary.size(); ++id)
        if (vocabulary.type(id) == Type::user_defined)
          scores_[static_cast<size_t>(id)] =
              options.arithmetic == UnigramOptions::Arithmetic::f32
                  ? static_cast<double>(static_cast<float>(vocabulary.text(id).size()) * static_cast<float>(highest)) -
                        0.1
                  : 0.0;
  }

  void encode(std::string_view word, SubwordScratch& scratch, std::vector<int32_t>& out) const override {
    if (options_.arithmetic == UnigramOptions::Arithmetic::f32)
      find_path<float>(word, scratch.path);
    else
      find_path<double>(word, scratch.path);
    // The path is read from its end; a negative number is a place where an unknown stretch begins.
    auto& back = scratch.backwards;
    back.clear();
    for (size_t end = word.size(); end > 0; end = scratch.path[end].from) {
      const auto& best = scratch.path[end];
      if (best.id != options_.unknown)
        back.push_back(best.id);
      else
        back.push_back(-1 - static_cast<int32_t>(best.from));
    }
    size_t at = 0;
    for (size_t i = back.size(); i-- > 0;) {
      if (back[i] >= 0) {
        at += vocabulary_.text(back[i]).size();
        out.push_back(back[i]);
        continue;
      }
      size_t end = at + utf8_front(word.substr(at)).length;
      while (options_.fuse_unknown && i > 0 && back[i - 1] < 0) {
        --i;
        end += utf8_front(word.substr(end)).length;
      }
      put_unknown(word.substr(at, end - at), out);
      at = end;
    }
  }

  size_t separable(std::string_view text) const override {
    return options_.separable ? boundaries_.next(text) : text.size();
  }

 private:
  template <class Real>
  void find_path(std::string_view word, std::vector<SubwordScratch::Best>& path) const {
    path.assign(word.size() + 1, {0, 0, not_reached});
    const auto offer = [&](size_t from, size_t end, int32_t id, double score) {
      auto& best = path[end];
      const double total = static_cast<double>(static_cast<Real>(score) + static_cast<Real>(path[from].score));
      if (best.id == not_reached || total > best.score) best = {total, static_cast<uint32_t>(from), id};
    };
    for (size_t from = 0; from < word.size();) {
      const size_t one = static_cast<uint8_t>(word[from]) < 0x80 ? 1 : utf8_front(word.substr(from)).length;
      bool alone = false;
      uint32_t node = Trie::root;
      for (size_t end = from; end < word.size();) {
        node = trie_.step(node, word[end++]);
        if (node == Trie::none) break;
        const int32_t id = trie_.value(node);
        if (id < 0) continue;
        offer(from, end, id, scores_[static_cast<size_t>(id)]);
        alone = alone || end - from == one;
      }
      if (!alone) {
        NIBBLE_CHECK(options_.unknown >= 0 || options_.byte_fallback, vocabulary_.file,
                     ": the vocabulary has no token for '", word.substr(from, one), "', and no unknown token");
        offer(from, from + one, options_.unknown, unknown_score_);
      }
      from += one;
    }
  }

  void put_unknown(std::string_view text, std::vector<int32_t>& out) const {
    if (options_.byte_fallback && fallback_.covers(text)) {
      fallback_.append(text, out);
      return;
    }
    NIBBLE_CHECK(options_.unknown >= 0, vocabulary_.file, ": the vocabulary has no token for '", text.substr(0, 40),
                 "', and no unknown token");
    out.push_back(options_.unknown);
  }

  const Vocabulary& vocabulary_;
  UnigramOptions options_;
  std::vector<double> scores_;
  double unknown_score_ = 0;
  Trie trie_;
  ByteFallback fallback_;
  SpaceBoundaries boundaries_;
};

}  // namespace

std::unique_ptr<SubwordModel> make_unigram(const Vocabulary& vocabulary, const UnigramOptions& options,
                                           const std::vector<double>& scores) {
  return std::make_unique<Unigram>(vocabulary, options, scores);
}

}  // namespace nibble::models
