// SPDX-License-Identifier: Apache-2.0
// The pre-tokenizers that GGUF files know by name, and the patterns that files without any rely on.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/text/pretokenizer.h"

namespace nibble::models {

struct NamedPreTokenizer {
  PreTokenizer steps;
  bool prefers_whole_words = false;  ///< a word that is a token is taken as it is, whatever the merges say
  bool adds_bos = false;             ///< unless the file says otherwise
  bool adds_separator = false;
  bool nfc = false;                  ///< the models' own tokenizers normalise first
  bool byte_level = true;            ///< else tokens are plain text
  bool escapes_spaces = false;       ///< as U+2581
  /// What words are cut by, in turn, for files that spell it out; empty where that takes more than patterns.
  std::vector<std::string> patterns;
};

/// Throws Error naming the known names.
NamedPreTokenizer named_pretokenizer(std::string_view name);
std::vector<std::string_view> pretokenizer_names();
/// The first name of byte-level words that are cut by these patterns in turn; "" when there is none.
std::string_view pretokenizer_name_of(std::span<const std::string> patterns);

inline constexpr const char* gpt2_pattern =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
inline constexpr const char* llama3_pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
inline constexpr const char* qwen2_pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
inline constexpr const char* kimi_pattern =
    "\\p{Han}+|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]*"
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]+"
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

}  // namespace nibble::models
