// SPDX-License-Identifier: Apache-2.0
// Tokenizers from the metadata of GGUF files.
#include <algorithm>

#include "models/io/gguf.h"
#include "models/text/pipeline.h"
#include "models/text/pretokenizer_names.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

using Type = Vocabulary::Type;

void put_around(Pipeline& parts) {
  if (parts.vocabulary.add_bos) parts.prefix = {parts.vocabulary.bos};
  if (parts.vocabulary.add_eos) parts.suffix = {parts.vocabulary.eos};
}

void add_separator(const Gguf& gguf, Pipeline& parts) {
  // The misspelt key is the one that files have.
  const int32_t id = read_token_id(gguf, "tokenizer.ggml.seperator_token_id", -1, parts.vocabulary);
  if (id >= 0) parts.suffix = {id};
}

void check_byte_tokens(const Vocabulary& vocabulary) {
  std::array<int32_t, 256> seen;
  seen.fill(-1);
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    if (vocabulary.type(id) != Type::byte) continue;
    const std::string& text = vocabulary.text(id);
    const int byte = spelled_byte(text);
    NIBBLE_CHECK(byte >= 0, vocabulary.file, ": tokenizer.ggml.tokens: byte token ", id, " is '", text.substr(0, 60),
                 "'; expected <0x00> to <0xFF>");
    int32_t& token = seen[static_cast<size_t>(byte)];
    NIBBLE_CHECK(token < 0, vocabulary.file, ": tokenizer.ggml.tokens: byte tokens ", token, " and ", id,
                 " stand for the same byte");
    token = id;
  }
}

void decode_as_sentencepiece(Pipeline& parts, bool drops_first_space) {
  parts.detokenizer.add(Detokenizer::ByteFallback{});
  parts.detokenizer.add(Detokenizer::Replace{std::string(SpaceBoundaries::mark), " "});
  parts.detokenizer.fuse();
  if (drops_first_space) parts.detokenizer.add(Detokenizer::Strip{" ", 1, 0});
}

std::unique_ptr<Pipeline> read_spm(const Gguf& gguf) {
  auto parts = std::make_unique<Pipeline>();
  parts->vocabulary = read_vocabulary(gguf, Vocabulary::Bos::by_default, 1, 2, 0);
  check_byte_tokens(parts->vocabulary);
  const std::vector<float> scores = read_scores(gguf, parts->vocabulary);
  auto rules = std::make_shared<SentencePieceRules>();
  rules->add_dummy_prefix = read_flag(gguf, "tokenizer.ggml.add_space_prefix", true);
  rules->remove_extra_spaces = false;
  rules->replace_invalid = false;
  decode_as_sentencepiece(*parts, rules->add_dummy_prefix);
  parts->normalizer.add(std::move(rules));
  BpeOptions options;
  options.unknown = parts->vocabulary.unknown;
  options.byte_fallback = options.unknown_required = true;
  parts->model = make_scored_bpe(parts->vocabulary, options, scores);
  put_around(*parts);
  return parts;
}

std::unique_ptr<Pipeline> read_bpe(const Gguf& gguf, const std::string& fallback) {
  constexpr std::string_view key = "tokenizer.ggml.pre";
  NamedPreTokenizer pre;
  try {
    pre = named_pretokenizer(read_text(gguf, key, fallback));
  } catch (const Error& error) {
    fail(gguf.path(), ": ", key, ": ", error.what());
  }
  auto parts = std::make_unique<Pipeline>();
  const auto bos = pre.adds_bos ? Vocabulary::Bos::by_default : Vocabulary::Bos::not_by_default;
  parts->vocabulary = read_vocabulary(gguf, bos, -1, -1, -1);
  const std::vector<Merge> merges = read_merges(gguf, parts->vocabulary);
  parts->pre = std::move(pre.steps);
  if (pre.nfc) parts->normalizer.add(NormalForm::nfc);
  BpeOptions options;
  options.byte_level = pre.byte_level;
  options.whole_words = pre.prefers_whole_words;
  options.byte_fallback = !pre.byte_level;
  options.unknown = parts->vocabulary.unknown;
  if (pre.escapes_spaces) {
    const std::string mark(SpaceBoundaries::mark);
    parts->normalizer.add(ReplaceRule{Regex(" "), " ", mark});
    decode_as_sentencepiece(*parts, false);
  } else {
    parts->detokenizer.add(Detokenizer::ByteLevel{});
  }
  parts->model = make_bpe(parts->vocabulary, options, merges);
  put_around(*parts);
  if (pre.adds_separator) add_separator(gguf, *parts);
  return parts;
}

std::unique_ptr<Pipeline> read_unigram(const Gguf& gguf) {
  auto parts = std::make_unique<Pipeline>();
  parts->vocabulary = read_vocabulary(gguf, Vocabulary::Bos::not_by_default, -1, 1, 2);
  check_byte_tokens(parts->vocabulary);
  if (!gguf.find("tokenizer.ggml.add_eos_token")) parts->vocabulary.add_eos = parts->vocabulary.eos >= 0;
  const std::vector<float> scores = read_scores(gguf, parts->vocabulary);
  auto rules = std::make_shared<SentencePieceRules>();
  rules->add_dummy_prefix = read_flag(gguf, "tokenizer.ggml.add_space_prefix", false);
  rules->remove_extra_spaces = read_flag(gguf, "tokenizer.ggml.remove_extra_whitespaces", false);
  constexpr std::string_view key = "tokenizer.ggml.precompiled_charsmap";
  if (const GgufValue* value = gguf.find(key)) {
    const auto* bytes = std::get_if<std::vector<int64_t>>(&value->data);
    NIBBLE_CHECK(bytes && (value->element == GgufValue::Type::u8 || value->element == GgufValue::Type::i8),
                 gguf.path(), ": ", key, " has the wrong type; expected an array of u8");
    std::string blob;
    for (int64_t byte : *bytes) blob += static_cast<char>(byte);
    try {
      rules->charsmap = Charsmap(blob);
    } catch (const Error& error) {
      fail(gguf.path(), ": ", key, ": ", error.what());
    }
  }
  for (int32_t id = 0; id < parts->vocabulary.size(); ++id)
    if (parts->vocabulary.type(id) == Type::user_defined) rules->user_defined.add(parts->vocabulary.text(id), id);
  decode_as_sentencepiece(*parts, rules->add_dummy_prefix);
  parts->normalizer.add(std::move(rules));
  UnigramOptions options;
  options.unknown = parts->vocabulary.unknown;
  options.user_defined_first = options.separable = options.byte_fallback = true;
  parts->model = make_unigram(parts->vocabulary, options, {scores.begin(), scores.end()});
  put_around(*parts);
  return parts;
}

std::unique_ptr<Pipeline> read_wordpiece(const Gguf& gguf) {
  auto parts = std::make_unique<Pipeline>();
  parts->vocabulary = read_vocabulary(gguf, Vocabulary::Bos::by_default, 101, -1, 100);
  Vocabulary& vocabulary = parts->vocabulary;
  if (vocabulary.unknown < 0) vocabulary.unknown = vocabulary.find("[UNK]");
  BertRules rules;
  rules.lowercase = read_flag(gguf, "tokenizer.ggml.normalizer.lowercase", true);
  rules.strip_accents = read_flag(gguf, "tokenizer.ggml.normalizer.strip_accents", rules.lowercase);
  parts->normalizer.add(rules);
  parts->pre.add(ClassSplit{is_white_space, SplitBehavior::removed});
  parts->pre.add(
      ClassSplit{[](uint32_t c) { return is_ascii_symbol(c) || is_punctuation(c); }, SplitBehavior::isolated});
  WordPieceOptions options;
  options.unknown = vocabulary.unknown;
  options.prefix.clear();
  options.first = SpaceBoundaries::mark;
  parts->model = make_wordpiece(vocabulary, options);
  parts->detokenizer.add(Detokenizer::Replace{std::string(SpaceBoundaries::mark), " "});
  parts->detokenizer.fuse();
  parts->detokenizer.add(Detokenizer::Strip{" ", 1, 0});
  put_around(*parts);
  const int32_t separator =
      read_token_id(gguf, "tokenizer.ggml.seperator_token_id", vocabulary.find("[SEP]"), vocabulary);
  if (separator >= 0) parts->suffix = {separator};
  return parts;
}

/// "\n", "\x41" and the like, as Python's repr writes bytes.
std::string unescaped(std::string_view text, const std::string& file, int32_t id) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      out += text[i];
      continue;
    }
    NIBBLE_CHECK(++i < text.size(), file, ": tokenizer.ggml.tokens: token ", id, " ends in a backslash");
    const char c = text[i];
    if (c != 'x') {
      out += c == 't' ? '\t' : c == 'n' ? '\n' : c == 'r' ? '\r' : c;
      continue;
    }
    const int byte = spelled_byte(std::string("<0x").append(text.substr(i + 1, 2)).append(">"));
    NIBBLE_CHECK(byte >= 0, file, ": tokenizer.ggml.tokens: token ", id, " has \\x without two digits");
    out += static_cast<char>(byte);
    i += 2;
  }
  return out;
}

std::unique_ptr<Pipeline> read_rwkv(const Gguf& gguf) {
  auto parts = std::make_unique<Pipeline>();
  parts->vocabulary = read_vocabulary(gguf, Vocabulary::Bos::not_by_default, -1, -1, -1);
  std::vector<std::string> texts;
  for (int32_t id = 0; id < parts->vocabulary.size(); ++id) {
    const Type type = parts->vocabulary.type(id);
    const bool special = type == Type::control || type == Type::unknown;
    texts.push_back(special ? "" : unescaped(parts->vocabulary.text(id), gguf.path(), id));
  }
  parts->model = make_greedy(texts, parts->vocabulary.unknown);
  std::vector<Type> types = parts->vocabulary.types;
  for (int32_t id = 0; id < parts->vocabulary.size(); ++id)
    if (!texts[static_cast<size_t>(id)].empty())
      parts->vocabulary.texts[static_cast<size_t>(id)] = texts[static_cast<size_t>(id)];
  parts->vocabulary.index();
  put_around(*parts);
  return parts;
}

void strip_after_controls(const Gguf& gguf, Pipeline& parts) {
  std::string name = read_text(gguf, "general.name", "");
  std::transform(name.begin(), name.end(), name.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
  if (name.find("phi-3") == std::string::npos && name.find("phi3") == std::string::npos) return;
  for (Pipeline::Added& added : parts.added) {
    const std::string& text = parts.vocabulary.text(added.id);
    added.flags.right = text != "<unk>" && text != "<s>" && text != "<|endoftext|>";
  }
}

}  // namespace

std::unique_ptr<Pipeline> read_gguf_tokenizer(const Gguf& gguf) {
  constexpr std::string_view key = "tokenizer.ggml.model";
  const std::string kind = read_text(gguf, key, "");
  NIBBLE_CHECK(!kind.empty(), gguf.path(), ": ", key, " is missing");
  std::unique_ptr<Pipeline> parts;
  std::string shown = kind;
  try {
    if (kind == "llama")
      parts = read_spm(gguf);
    else if (kind == "gpt2" || kind == "whitespace" || kind == "gemma4")
      parts = read_bpe(gguf, kind == "gpt2" ? "default" : kind), shown = "gpt2";
    else if (kind == "t5")
      parts = read_unigram(gguf);
    else if (kind == "bert")
      parts = read_wordpiece(gguf);
    else if (kind == "rwkv")
      parts = read_rwkv(gguf);
    else
      fail("'", kind.substr(0, 60), "'; known: llama, gpt2, t5, bert, rwkv, gemma4, whitespace");
  } catch (const Error& error) {
    const std::string what = error.what();
    if (what.find(gguf.path()) != std::string::npos) throw;
    fail(gguf.path(), ": ", key, ": ", what);
  }
  parts->kind = shown;
  add_typed_tokens(*parts);
  strip_after_controls(gguf, *parts);
  return parts;
}

std::shared_ptr<const Tokenizer> Tokenizer::from_gguf(const Gguf& gguf) {
  return make_tokenizer(read_gguf_tokenizer(gguf));
}

}  // namespace nibble::models
