// SPDX-License-Identifier: Apache-2.0
#include "models/text/folder_files.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>

#include "models/text/pipeline.h"
#include "models/text/pretokenizer_names.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

using nlohmann::ordered_json;
using Type = Vocabulary::Type;
using Files = std::vector<std::pair<std::string, std::string>>;

std::string text_of(const ordered_json& json, const Gguf& gguf, int indent) {
  try {
    return json.dump(indent) + "\n";
  } catch (const ordered_json::exception&) {  // a Hugging Face tokenizer cannot have them
    fail(gguf.path(), ": tokenizer.ggml.tokens: expected UTF-8 in all of the tokens that are no bytes");
  }
}

/// A token that is found as it stands in a text.
ordered_json added_token(const Pipeline& parts, const Pipeline::Added& added) {
  return {{"content", parts.vocabulary.text(added.id)},
          {"single_word", added.flags.single_word},
          {"lstrip", added.flags.left},
          {"rstrip", added.flags.right},
          {"normalized", added.normalized},
          {"special", !added.flags.always}};
}

ordered_json post_processor(const Pipeline& parts) {
  if (parts.prefix.empty() && parts.suffix.empty()) return {};
  ordered_json single = ordered_json::array(), pair = ordered_json::array(), tokens = ordered_json::object();
  const auto put = [&](const std::vector<int32_t>& ids, ordered_json& list, int type) {
    for (const int32_t id : ids) {
      const std::string& text = parts.vocabulary.text(id);
      list.push_back({{"SpecialToken", {{"id", text}, {"type_id", type}}}});
      tokens[text] = {{"id", text}, {"ids", {id}}, {"tokens", {text}}};
    }
  };
  for (const char* sequence : {"A", "B"}) {
    const int type = *sequence - 'A';
    for (ordered_json* list : {&single, &pair}) {
      if (list == &single && type == 1) continue;
      put(parts.prefix, *list, type);
      list->push_back({{"Sequence", {{"id", sequence}, {"type_id", type}}}});
      put(parts.suffix, *list, type);
    }
  }
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", tokens}};
}

ordered_json byte_level(bool cuts) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", cuts}};
}

/// The vocabulary, and the merges as ids.
void add_tokens(const Vocabulary& vocabulary, const std::vector<Merge>& merges, ordered_json& model) {
  if (vocabulary.unknown >= 0) model["unk_token"] = vocabulary.text(vocabulary.unknown);
  // operator[] of ordered_json looks through all of them
  ordered_json::object_t ids;
  for (int32_t id = 0; id < vocabulary.size(); ++id) ids.emplace_back(vocabulary.text(id), id);
  model["vocab"] = std::move(ids);
  model["merges"] = ordered_json::array();
  for (const Merge& merge : merges)
    model["merges"].push_back({vocabulary.text(merge.left), vocabulary.text(merge.right)});
}

ordered_json bpe_model(bool sentencepiece, bool whole_words) {
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", sentencepiece},
          {"byte_fallback", sentencepiece},
          {"ignore_merges", whole_words}};
}

/// Byte-level words.
void add_words(const Gguf& gguf, const Vocabulary& vocabulary, ordered_json& json) {
  constexpr std::string_view key = "tokenizer.ggml.pre";
  const std::string name = read_text(gguf, key, "default");
  const NamedPreTokenizer pre = named_pretokenizer(name);
  NIBBLE_CHECK(pre.byte_level && !pre.patterns.empty(), gguf.path(), ": ", key, ": '", name,
               "' can't be written as tokenizer.json");
  ordered_json steps = ordered_json::array();
  for (const std::string& pattern : pre.patterns)
    steps.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  steps.push_back(byte_level(false));
  json["normalizer"] = pre.nfc ? ordered_json{{"type", "NFC"}} : ordered_json();
  json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
  json["decoder"] = byte_level(true);
  json["model"] = bpe_model(false, pre.prefers_whole_words);
  add_tokens(vocabulary, read_merges(gguf, vocabulary), json["model"]);
}

/// SentencePiece merges any two neighbours that are a token together, the best score first. As a list: every way to
/// make a token of two, in the order of the scores.
std::vector<Merge> merges_by_score(const Gguf& gguf, const Vocabulary& vocabulary) {
  const std::vector<float> scores = read_scores(gguf, vocabulary);
  const auto part = [&](std::string_view text) {
    const int32_t id = vocabulary.find(text);
    const Type type = id >= 0 ? vocabulary.type(id) : Type::control;
    return type == Type::normal || type == Type::user_defined || type == Type::unused ? id : -1;
  };
  std::vector<Merge> merges;
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    const std::string_view text = vocabulary.text(id);
    if (part(text) != id || vocabulary.type(id) == Type::unused) continue;
    for (size_t at = 1; at < text.size(); ++at) {
      if ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) continue;  // inside of a character
      const Merge merge{part(text.substr(0, at)), part(text.substr(at)), id};
      if (merge.left >= 0 && merge.right >= 0) merges.push_back(merge);
    }
  }
  const auto rank = [&](const Merge& m) {
    return std::tuple(-scores[static_cast<size_t>(m.merged)], m.merged, m.left, m.right);
  };
  std::sort(merges.begin(), merges.end(), [&](const Merge& a, const Merge& b) { return rank(a) < rank(b); });
  return merges;
}

void add_pieces(const Gguf& gguf, const Vocabulary& vocabulary, ordered_json& json) {
  const std::string mark(SpaceBoundaries::mark);
  const auto replace = [](const std::string& from, const std::string& to) {
    return ordered_json{{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
  };
  const bool prefix = read_flag(gguf, "tokenizer.ggml.add_space_prefix", true);
  ordered_json rules = ordered_json::array(), back = ordered_json::array();
  if (prefix) rules.push_back({{"type", "Prepend"}, {"prepend", mark}});
  rules.push_back(replace(" ", mark));
  json["normalizer"] = {{"type", "Sequence"}, {"normalizers", std::move(rules)}};
  json["pre_tokenizer"] = nullptr;
  back.push_back(replace(mark, " "));
  back.push_back({{"type", "ByteFallback"}});
  back.push_back({{"type", "Fuse"}});
  if (prefix) back.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  json["decoder"] = {{"type", "Sequence"}, {"decoders", std::move(back)}};
  json["model"] = bpe_model(true, false);
  add_tokens(vocabulary, merges_by_score(gguf, vocabulary), json["model"]);
}

std::string tokenizer_json(const Gguf& gguf, const Pipeline& parts) {
  ordered_json json = {
      {"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}, {"added_tokens", ordered_json::array()}};
  for (const Pipeline::Added& added : parts.added) {
    ordered_json token = {{"id", added.id}};
    token.update(added_token(parts, added));
    json["added_tokens"].push_back(std::move(token));
  }
  if (parts.kind == "llama")
    add_pieces(gguf, parts.vocabulary, json);
  else
    add_words(gguf, parts.vocabulary, json);
  json["post_processor"] = post_processor(parts);
  return text_of(json, gguf, -1);
}

/// The default one as text, or all by name.
ordered_json chat_templates(const Gguf& gguf) {
  constexpr std::string_view key = "tokenizer.chat_template";
  ordered_json named = ordered_json::array();
  const std::string plain = read_text(gguf, key, "");
  if (!plain.empty()) named.push_back({{"name", "default"}, {"template", plain}});
  for (const auto& [name, value] : gguf.values())
    if (const auto* text = std::get_if<std::string>(&value.data);
        text != nullptr && name.starts_with(std::string(key) + "."))
      named.push_back({{"name", name.substr(key.size() + 1)}, {"template", *text}});
  return named.size() == 1 && !plain.empty() ? ordered_json(plain) : named;
}

std::string tokenizer_config(const Gguf& gguf, const Metadata& metadata, const Pipeline& parts) {
  const Vocabulary& vocabulary = parts.vocabulary;
  ordered_json json = {{"tokenizer_class", "PreTrainedTokenizerFast"}};  // reads tokenizer.json as it is
  const int32_t padding = read_token_id(gguf, "tokenizer.ggml.padding_token_id", -1, vocabulary);
  for (const auto& [key, id] : {std::pair("bos_token", vocabulary.bos), std::pair("eos_token", vocabulary.eos),
                                std::pair("unk_token", vocabulary.unknown), std::pair("pad_token", padding)})
    json[key] = id >= 0 ? ordered_json(vocabulary.text(id)) : ordered_json();
  json["clean_up_tokenization_spaces"] = false;
  json["model_max_length"] = metadata.get_int("context_length", 1 << 30, 1, 1 << 30);
  json["added_tokens_decoder"] = ordered_json::object();
  for (const Pipeline::Added& added : parts.added)
    json["added_tokens_decoder"][std::to_string(added.id)] = added_token(parts, added);
  if (const ordered_json chat = chat_templates(gguf); !chat.empty()) json["chat_template"] = chat;
  return text_of(json, gguf, 2);
}

std::string generation_config(const Gguf& gguf, const Pipeline& parts) {
  const Vocabulary& vocabulary = parts.vocabulary;
  ordered_json json = ordered_json::object();
  if (vocabulary.bos >= 0) json["bos_token_id"] = vocabulary.bos;
  if (vocabulary.ends.size() == 1) json["eos_token_id"] = vocabulary.ends.front();
  if (vocabulary.ends.size() > 1) json["eos_token_id"] = vocabulary.ends;
  return text_of(json, gguf, 2);
}

}  // namespace

Files tokenizer_files(const Gguf& gguf, const Metadata& metadata) {
  if (gguf.find("tokenizer.ggml.tokens") == nullptr) return {};
  const auto parts = read_gguf_tokenizer(gguf);
  NIBBLE_CHECK(parts->kind == "llama" || parts->kind == "gpt2", gguf.path(),
               ": tokenizer.ggml.model: a tokenizer of the kind '", parts->kind,
               "' can't be written to a folder; those that can are llama, gpt2");
  Files out;
  out.emplace_back("tokenizer.json", tokenizer_json(gguf, *parts));
  out.emplace_back("tokenizer_config.json", tokenizer_config(gguf, metadata, *parts));
  out.emplace_back("generation_config.json", generation_config(gguf, *parts));
  return out;
}

}  // namespace nibble::models
