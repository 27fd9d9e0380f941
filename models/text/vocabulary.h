// SPDX-License-Identifier: Apache-2.0
// The tokens of a model, and what a GGUF file says about them, checked.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace nibble::models {

class Gguf;

struct Vocabulary {
  enum class Type : uint8_t { normal = 1, unknown, control, user_defined, unused, byte };
  enum class Bos { by_default, not_by_default };

  std::string file;
  std::vector<std::string> texts;
  std::vector<Type> types;
  std::unordered_map<std::string_view, int32_t> ids;  ///< of every text
  int32_t bos = -1, eos = -1, unknown = -1;           ///< -1: none
  std::vector<int32_t> ends;                          ///< sorted; eos and the known end-of-turn texts among them
  bool add_bos = false, add_eos = false;

  int size() const { return static_cast<int>(texts.size()); }
  Type type(int32_t token) const { return types[static_cast<size_t>(token)]; }
  const std::string& text(int32_t token) const { return texts[static_cast<size_t>(token)]; }
  int32_t find(std::string_view text) const {
    const auto found = ids.find(text);
    return found == ids.end() ? -1 : found->second;
  }
  /// Fills ids from texts; the first of equal texts counts, empty ones (holes) do not.
  void index();
  /// The known end-of-turn texts join `ends`, which is sorted.
  void find_ends();

  Vocabulary() = default;
  Vocabulary(Vocabulary&&) = default;  // the texts stay where they are, so the views in ids stay good
  Vocabulary& operator=(Vocabulary&&) = default;
  Vocabulary(const Vocabulary&) = delete;
};

/// Tokens, types and special ids. Throws Error naming the file and the key.
Vocabulary read_vocabulary(const Gguf& gguf, Vocabulary::Bos bos, int32_t default_bos, int32_t default_eos,
                           int32_t default_unknown);

/// tokenizer.ggml.scores: one finite f32 for each token.
std::vector<float> read_scores(const Gguf& gguf, const Vocabulary& vocabulary);
/// tokenizer.ggml.merges: two tokens of the vocabulary and the token that they become, best first.
struct Merge {
  int32_t left, right, merged;
};
std::vector<Merge> read_merges(const Gguf& gguf, const Vocabulary& vocabulary);
/// A token of the vocabulary.
int32_t read_token_id(const Gguf& gguf, std::string_view key, int32_t fallback, const Vocabulary& vocabulary);
bool read_flag(const Gguf& gguf, std::string_view key, bool fallback);
std::string read_text(const Gguf& gguf, std::string_view key, std::string_view fallback);
/// The largest id that a file of `tokens` tokens may give one: files leave holes, but a small one must not ask for
/// gigabytes.
constexpr int64_t largest_id(size_t tokens) {
  return std::min<int64_t>((1 << 24) - 1, (1 << 16) + 2 * static_cast<int64_t>(tokens));
}
/// The byte that "<0xAB>" spells; -1 for any other text.
int spelled_byte(std::string_view text);

}  // namespace nibble::models
