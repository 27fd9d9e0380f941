// SPDX-License-Identifier: Apache-2.0
#include "models/text/tokenizer.h"

#include <algorithm>
#include <functional>

#include "models/io/gguf.h"
#include "models/text/tokenizer_base.h"
#include "tensor/check.h"

namespace nibble::models {

std::shared_ptr<const Tokenizer> Tokenizer::from_gguf(const Gguf& gguf) {
  constexpr std::string_view key = "tokenizer.ggml.model";
  const std::string kind = read_text(gguf, key, "");
  NIBBLE_CHECK(!kind.empty(), gguf.path(), ": ", key, " is missing");
  if (kind == "llama") return make_spm_tokenizer(gguf);
  if (kind == "gpt2") return make_bpe_tokenizer(gguf);
  fail(gguf.path(), ": ", key, " is '", kind.substr(0, 60), "'; known: llama, gpt2");
}

std::string Tokenizer::decode(std::span<const int32_t> tokens, bool special) const {
  std::string out;
  bool first = decode_drops_first_space_;
  for (int32_t token : tokens) {
    std::string text = piece(token, special);
    if (first && !is_control(token)) {
      first = false;
      if (text.starts_with(' ')) text.erase(0, 1);
    }
    out += text;
  }
  return out;
}

bool Tokenizer::is_end(int32_t token) const {
  return std::binary_search(end_tokens_.begin(), end_tokens_.end(), token);
}

TokenizerBase::TokenizerBase(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {
  using Type = Vocabulary::Type;
  bos_ = vocabulary_.bos;
  eos_ = vocabulary_.eos;
  add_bos_ = vocabulary_.add_bos;
  add_eos_ = vocabulary_.add_eos;
  end_tokens_ = vocabulary_.ends;
  for (int32_t id = 0; id < vocabulary_.size(); ++id) {
    const Type type = vocabulary_.type(id);
    if (type == Type::control || type == Type::user_defined || type == Type::unknown)
      special_.add(vocabulary_.text(id), id, type == Type::user_defined);
  }
}

std::vector<int32_t> TokenizerBase::encode(std::string_view text, const EncodeOptions& options) const {
  NIBBLE_CHECK(text.size() < 1u << 30, "text of ", text.size(), " bytes; at most 1073741823 can be encoded at once");
  std::vector<int32_t> out;
  if (options.add_bos && add_bos_) out.push_back(bos_);
  size_t at = 0;
  while (at < text.size()) {
    const SpecialTokens::Match match = special_.next(text, at, !options.parse_special, options.plain);
    if (match.at > at) encode_text(text.substr(at, match.at - at), out);
    if (match.id >= 0) out.push_back(match.id);
    at = match.at + match.length;
  }
  if (options.add_bos && add_eos_) out.push_back(eos_);
  return out;
}

void TokenizerBase::check_id(int32_t token) const {
  NIBBLE_CHECK(token >= 0 && token < vocabulary_.size(), "token ", token, " is outside the vocabulary of ",
               vocabulary_.size(), " tokens");
}

std::string TokenizerBase::piece(int32_t token, bool special) const {
  check_id(token);
  const std::string& text = vocabulary_.text(token);
  switch (vocabulary_.type(token)) {
    case Vocabulary::Type::control:
    case Vocabulary::Type::unknown:
      return special ? text : "";
    case Vocabulary::Type::user_defined:
      return text;
    case Vocabulary::Type::byte:
      if (const int byte = spelled_byte(text); byte >= 0) return std::string(1, static_cast<char>(byte));
      break;
    case Vocabulary::Type::normal:
    case Vocabulary::Type::unused:
      break;
  }
  return plain_piece(text);
}

std::string_view TokenizerBase::token_text(int32_t token) const {
  check_id(token);
  return vocabulary_.text(token);
}

bool TokenizerBase::is_control(int32_t token) const {
  check_id(token);
  return vocabulary_.type(token) == Vocabulary::Type::control || vocabulary_.type(token) == Vocabulary::Type::unknown;
}

int32_t TokenizerBase::find(std::string_view text) const {
  const int32_t id = vocabulary_.find(text);
  if (id < 0) return -1;
  const Vocabulary::Type type = vocabulary_.type(id);
  return type == Vocabulary::Type::control || type == Vocabulary::Type::user_defined ? id : -1;
}

size_t WordCache::slot(std::string_view word) const {
  return std::hash<std::string_view>{}(word) & (slots_.size() - 1);
}

bool WordCache::replay(std::string_view word, std::vector<int32_t>& out) const {
  if (slots_.empty()) return false;
  const Slot& known = slots_[slot(word)];
  if (known.word != word) return false;
  for (uint32_t i = 0; i < known.count; ++i) out.push_back(out[known.first + i]);
  return true;
}

void WordCache::remember(std::string_view word, const std::vector<int32_t>& out, size_t first) {
  if (slots_.empty() || word.size() > 64) return;
  slots_[slot(word)] = {word, static_cast<uint32_t>(first), static_cast<uint32_t>(out.size() - first)};
}

}  // namespace nibble::models
