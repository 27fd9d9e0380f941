// SPDX-License-Identifier: Apache-2.0
#include "models/text/vocabulary.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "models/io/gguf.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

// No tokenizer in use has a token of more than a few hundred bytes; the bound keeps work per token small.
constexpr size_t longest_token = 4096;

constexpr std::array<std::string_view, 18> end_texts = {
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
    "<|end_of_turn|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<|return|>",
    "<|call|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<|EOT|>",
    "<end_of_utterance>",
    "<|endofturn|>",
    "<\xEF\xBD\x9C"
    "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
};

template <class T>
const T* get(const Gguf& gguf, std::string_view key, std::string_view expected, GgufValue::Type type,
             std::initializer_list<GgufValue::Type> elements = {}) {
  const GgufValue* value = gguf.find(key);
  if (!value) return nullptr;
  const bool fits =
      value->type == type &&
      (type != GgufValue::Type::array || std::find(elements.begin(), elements.end(), value->element) != elements.end());
  const T* data = std::get_if<T>(&value->data);
  NIBBLE_CHECK(fits && data, gguf.path(), ": ", key, " has the wrong type; expected ", expected);
  return data;
}

void read_texts(const Gguf& gguf, Vocabulary& vocabulary) {
  using Type = GgufValue::Type;
  constexpr std::string_view key = "tokenizer.ggml.tokens";
  const auto* texts = get<std::vector<std::string>>(gguf, key, "an array of strings", Type::array, {Type::string});
  NIBBLE_CHECK(texts && !texts->empty(), gguf.path(), ": ", key, " is missing or empty");
  NIBBLE_CHECK(texts->size() < 1u << 24, gguf.path(), ": ", key, " has ", texts->size(),
               " tokens; at most 16777215 are supported");
  vocabulary.texts = *texts;
  vocabulary.ids.reserve(texts->size());
  for (size_t i = 0; i < texts->size(); ++i) {
    const std::string& text = vocabulary.texts[i];
    NIBBLE_CHECK(!text.empty(), gguf.path(), ": ", key, ": token ", i, " is empty");
    NIBBLE_CHECK(text.size() <= longest_token, gguf.path(), ": ", key, ": token ", i, " has ", text.size(),
                 " bytes; at most ", longest_token, " are supported");
    NIBBLE_CHECK(text.find('\0') == std::string::npos, gguf.path(), ": ", key, ": token ", i, " contains a NUL byte");
    const bool added = vocabulary.ids.emplace(text, static_cast<int32_t>(i)).second;
    NIBBLE_CHECK(added, gguf.path(), ": ", key, ": tokens ", vocabulary.find(text), " and ", i, " are both '", text,
                 "'");
  }
}

void read_types(const Gguf& gguf, Vocabulary& vocabulary) {
  using Type = GgufValue::Type;
  constexpr std::string_view key = "tokenizer.ggml.token_type";
  const auto* types =
      get<std::vector<int64_t>>(gguf, key, "an array of i32 or u32", Type::array, {Type::i32, Type::u32});
  vocabulary.types.assign(vocabulary.texts.size(), Vocabulary::Type::normal);
  if (!types) {
    for (size_t i = 0; i < vocabulary.texts.size(); ++i)
      if (spelled_byte(vocabulary.texts[i]) >= 0) vocabulary.types[i] = Vocabulary::Type::byte;
    return;
  }
  NIBBLE_CHECK(types->size() == vocabulary.texts.size(), gguf.path(), ": ", key, " has ", types->size(),
               " elements; expected ", vocabulary.texts.size(), ", one for each of tokenizer.ggml.tokens");
  for (size_t i = 0; i < types->size(); ++i) {
    const int64_t type = (*types)[i];
    NIBBLE_CHECK(type >= 0 && type <= 6, gguf.path(), ": ", key, ": token ", i, " has type ", type,
                 "; expected 0 to 6");
    if (type > 0) vocabulary.types[i] = static_cast<Vocabulary::Type>(type);
  }
}

}  // namespace

void Vocabulary::index() {
  ids.clear();
  ids.reserve(texts.size());
  for (size_t i = 0; i < texts.size(); ++i)
    if (!texts[i].empty()) ids.emplace(texts[i], static_cast<int32_t>(i));
}

void Vocabulary::find_ends() {
  const bool harmony = find("<|return|>") >= 0 && find("<|call|>") >= 0;
  for (std::string_view text : end_texts) {
    if (harmony && text == "<|end|>") continue;  // there it ends a part of an answer, not the answer
    const int32_t id = find(text);
    if (id < 0) continue;
    ends.push_back(id);
    // Some converters mark these as ordinary text, which would put them into answers.
    Type& type = types[static_cast<size_t>(id)];
    if (type == Type::normal) type = Type::control;
  }
  std::erase_if(ends, [](int32_t id) { return id < 0; });
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
}

int32_t read_token_id(const Gguf& gguf, std::string_view key, int32_t fallback, const Vocabulary& vocabulary) {
  const GgufValue* value = gguf.find(key);
  if (!value) return fallback;
  int64_t id = -1;
  if (const auto* u = std::get_if<uint64_t>(&value->data))
    id = *u <= INT32_MAX ? static_cast<int64_t>(*u) : -1;
  else if (const auto* i = std::get_if<int64_t>(&value->data))
    id = *i;
  else
    fail(gguf.path(), ": ", key, " has the wrong type; expected an integer");
  NIBBLE_CHECK(id >= 0 && id < vocabulary.size(), gguf.path(), ": ", key, " is ", id, "; expected a token of the ",
               vocabulary.size(), " in tokenizer.ggml.tokens");
  return static_cast<int32_t>(id);
}

int spelled_byte(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
  int value = 0;
  for (char digit : text.substr(3, 2)) {
    value *= 16;
    if (digit >= '0' && digit <= '9')
      value += digit - '0';
    else if (digit >= 'A' && digit <= 'F')
      value += digit - 'A' + 10;
    else if (digit >= 'a' && digit <= 'f')
      value += digit - 'a' + 10;
    else
      return -1;
  }
  return value;
}

bool read_flag(const Gguf& gguf, std::string_view key, bool fallback) {
  const bool* flag = get<bool>(gguf, key, "a bool", GgufValue::Type::boolean);
  return flag ? *flag : fallback;
}

std::string read_text(const Gguf& gguf, std::string_view key, std::string_view fallback) {
  const std::string* text = get<std::string>(gguf, key, "a string", GgufValue::Type::string);
  return text ? *text : std::string(fallback);
}

Vocabulary read_vocabulary(const Gguf& gguf, Vocabulary::Bos bos, int32_t default_bos, int32_t default_eos,
                           int32_t default_unknown) {
  Vocabulary out;
  out.file = gguf.path();
  read_texts(gguf, out);
  read_types(gguf, out);
  // A default id counts only where the vocabulary has something special there.
  const auto fallback = [&](int32_t id) {
    return id >= 0 && id < out.size() && out.type(id) != Vocabulary::Type::normal ? id : -1;
  };
  out.bos = read_token_id(gguf, "tokenizer.ggml.bos_token_id", fallback(default_bos), out);
  out.eos = read_token_id(gguf, "tokenizer.ggml.eos_token_id", fallback(default_eos), out);
  out.unknown = read_token_id(gguf, "tokenizer.ggml.unknown_token_id", fallback(default_unknown), out);
  out.add_bos = read_flag(gguf, "tokenizer.ggml.add_bos_token", bos == Vocabulary::Bos::by_default) && out.bos >= 0;
  out.add_eos = read_flag(gguf, "tokenizer.ggml.add_eos_token", false) && out.eos >= 0;
  if (!gguf.find("tokenizer.ggml.token_type"))
    for (int32_t id : {out.bos, out.eos})
      if (id >= 0) out.types[static_cast<size_t>(id)] = Vocabulary::Type::control;
  out.ends = {out.eos};
  for (std::string_view key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
    out.ends.push_back(read_token_id(gguf, key, -1, out));
  out.find_ends();
  return out;
}

std::vector<float> read_scores(const Gguf& gguf, const Vocabulary& vocabulary) {
  using Type = GgufValue::Type;
  constexpr std::string_view key = "tokenizer.ggml.scores";
  const auto* scores = get<std::vector<double>>(gguf, key, "an array of f32", Type::array, {Type::f32});
  NIBBLE_CHECK(scores, gguf.path(), ": ", key, " is missing");
  NIBBLE_CHECK(scores->size() == vocabulary.texts.size(), gguf.path(), ": ", key, " has ", scores->size(),
               " elements; expected ", vocabulary.texts.size(), ", one for each of tokenizer.ggml.tokens");
  std::vector<float> out;
  out.reserve(scores->size());
  for (double score : *scores) {
    NIBBLE_CHECK(std::isfinite(score), gguf.path(), ": ", key, ": token ", out.size(), " has the score ", score);
    out.push_back(static_cast<float>(score));
  }
  return out;
}

std::vector<Merge> read_merges(const Gguf& gguf, const Vocabulary& vocabulary) {
  using Type = GgufValue::Type;
  constexpr std::string_view key = "tokenizer.ggml.merges";
  const auto* lines = get<std::vector<std::string>>(gguf, key, "an array of strings", Type::array, {Type::string});
  NIBBLE_CHECK(lines, gguf.path(), ": ", key, " is missing");
  std::vector<Merge> out;
  out.reserve(lines->size());
  std::string joined;
  for (const std::string& line : *lines) {
    const size_t space = line.find(' ');
    NIBBLE_CHECK(space != std::string::npos && space > 0 && space + 1 < line.size() &&
                     line.find(' ', space + 1) == std::string::npos,
                 gguf.path(), ": ", key, ": merge ", out.size(), " is '", line.substr(0, 100),
                 "'; expected two pieces with one space between them");
    const std::string_view left(line.data(), space), right(line.data() + space + 1, line.size() - space - 1);
    (joined = left) += right;
    const Merge merge{vocabulary.find(left), vocabulary.find(right), vocabulary.find(joined)};
    NIBBLE_CHECK(merge.left >= 0 && merge.right >= 0 && merge.merged >= 0, gguf.path(), ": ", key, ": merge ",
                 out.size(), " is '", line.substr(0, 100), "'; '",
                 (merge.left < 0    ? left
                  : merge.right < 0 ? right
                                    : std::string_view(joined))
                     .substr(0, 100),
                 "' is not in tokenizer.ggml.tokens");
    out.push_back(merge);
  }
  return out;
}

}  // namespace nibble::models
