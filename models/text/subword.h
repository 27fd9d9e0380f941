// SPDX-License-Identifier: Apache-2.0
// The models that turn a word into tokens.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "models/text/merger.h"
#include "models/text/trie.h"
#include "models/text/vocabulary.h"

namespace nibble::models {

/// What one call needs besides the model: the working memory of one thread.
struct SubwordScratch {
  struct Best {
    double score;
    uint32_t from;
    int32_t id;  ///< not_reached until a path ends here
  };
  Merger merger;
  std::vector<Best> path;
  std::vector<int32_t> backwards;
  std::string spelled;
};

/// Immutable and thread safe.
class SubwordModel {
 public:
  virtual ~SubwordModel() = default;
  /// Appends the tokens of a word (not empty, any bytes). O(n log n) for words without a bound on their length.
  virtual void encode(std::string_view word, SubwordScratch& scratch, std::vector<int32_t>& out) const = 0;
  /// How much of the front of `text` can be encoded on its own without changing any token.
  virtual size_t separable(std::string_view text) const { return text.size(); }
};

/// Places in a text, before a mark of a space, that no token crosses.
class SpaceBoundaries {
 public:
  static constexpr std::string_view mark = "\xE2\x96\x81";
  void add_token(std::string_view text);
  size_t next(std::string_view text) const;

 private:
  std::array<bool, 256> joined_{};  ///< by the byte before the mark
};

struct ByteFallback {
  ByteFallback() { tokens.fill(-1); }
  std::array<int32_t, 256> tokens;
  bool covers(std::string_view text) const;
  void append(std::string_view text, std::vector<int32_t>& out) const;
};

struct BpeOptions {
  bool byte_level = false;     ///< symbols are bytes, spelled by ByteAlphabet in the vocabulary
  bool whole_words = false;    ///< a word that is a token is taken as it is
  bool fuse_unknown = false;
  bool byte_fallback = false;
  bool unknown_required = false;  ///< an unknown character without a token is an error; else it is left out
  int32_t unknown = -1;
  std::string prefix, suffix;  ///< of the parts after the first, of the last
};

/// Merges by rank. A model takes its tokens from `vocabulary`, which must outlive it.
std::unique_ptr<SubwordModel> make_bpe(const Vocabulary& vocabulary, BpeOptions options,
                                       const std::vector<Merge>& merges);
/// Any two neighbours that are a token together merge, the best score first (rank = place among the scores).
std::unique_ptr<SubwordModel> make_scored_bpe(const Vocabulary& vocabulary, BpeOptions options,
                                              const std::vector<float>& scores, const Trie* frozen = nullptr);
/// Byte-level, spelled as raw bytes, the lowest id of `ranks` first; `ranks` are the ids of mergeable tokens.
std::unique_ptr<SubwordModel> make_ranked_bpe(const Vocabulary& vocabulary, int32_t ranks, bool whole_words);

struct UnigramOptions {
  enum class Arithmetic { f64, f32 };  ///< the references differ, and so do their ties
  Arithmetic arithmetic = Arithmetic::f64;
  int32_t unknown = -1;
  bool fuse_unknown = true;
  bool byte_fallback = false;
  bool user_defined_first = false;  ///< user-defined tokens beat any other path
  bool separable = false;           ///< the text may be cut where no token crosses
};
/// The most probable path (Viterbi).
std::unique_ptr<SubwordModel> make_unigram(const Vocabulary& vocabulary, const UnigramOptions& options,
                                           const std::vector<double>& scores);

struct WordPieceOptions {
  int32_t unknown = -1;
  std::string prefix = "##";  ///< of the parts after the first
  std::string first;          ///< of the first part
  size_t longest_word = 100;  ///< in characters
};
std::unique_ptr<SubwordModel> make_wordpiece(const Vocabulary& vocabulary, const WordPieceOptions& options);
/// Words that are tokens.
std::unique_ptr<SubwordModel> make_wordlevel(const Vocabulary& vocabulary, int32_t unknown);
/// The longest token first, over bytes (RWKV).
std::unique_ptr<SubwordModel> make_greedy(const std::vector<std::string>& texts, int32_t unknown);

}  // namespace nibble::models
