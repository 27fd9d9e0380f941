// SPDX-License-Identifier: Apache-2.0
// tokenizer.json, the format of Hugging Face's tokenizers library.
#include <algorithm>

#include "models/text/hf_parts.h"
#include "models/text/json_reader.h"
#include "models/text/text_config.h"

namespace nibble::models {

namespace {

using Type = Vocabulary::Type;
constexpr int64_t most_tokens = (1 << 24) - 1;
constexpr size_t longest_token = 1 << 16;

void put_token(const JsonView& where, Vocabulary& vocabulary, int64_t id, const std::string& text) {
  if (text.size() > longest_token) where.refuse("token ", id, " has ", text.size(), " bytes; at most ", longest_token);
  const auto at = static_cast<size_t>(id);
  if (at >= vocabulary.texts.size()) {
    vocabulary.texts.resize(at + 1);
    vocabulary.types.resize(at + 1, Type::unused);
  }
  if (!vocabulary.texts[at].empty() && vocabulary.texts[at] != text)
    where.refuse("'", vocabulary.texts[at].substr(0, 60), "' and '", text.substr(0, 60), "' both have the id ", id);
  vocabulary.texts[at] = text;
  vocabulary.types[at] = Type::normal;
}

/// {"text": id, ...}
void read_token_map(const JsonView& json, Vocabulary& vocabulary) {
  if (!json.is_object()) json.refuse("expected an object");
  vocabulary.texts.reserve(json.size());
  const int64_t largest = largest_id(json.size());
  for (const auto& [text, id] : json.raw().items()) {
    const bool fits =
        id.is_number_integer() && id.get<double>() >= 0 && id.get<double>() <= static_cast<double>(largest);
    if (!fits)
      json.refuse("'", text.substr(0, 60), "' has the id ", id.dump().substr(0, 40), "; expected 0 to ", largest);
    put_token(json, vocabulary, id.get<int64_t>(), text);
  }
}

std::vector<double> read_token_scores(const JsonView& json, Vocabulary& vocabulary) {
  json.check_array();
  if (json.size() > most_tokens) json.refuse("has ", json.size(), " tokens; at most ", most_tokens);
  std::vector<double> scores;
  for (const auto& pair : json.raw()) {
    const auto id = static_cast<int64_t>(scores.size());
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_number())
      json.refuse("token ", id, " is not a pair of a text and a score");
    put_token(json, vocabulary, id, pair[0].get_ref<const std::string&>());
    scores.push_back(pair[1].get<double>());
  }
  return scores;
}

std::vector<Merge> read_json_merges(const JsonView& json, const Vocabulary& vocabulary, size_t prefix) {
  json.check_array();
  std::vector<Merge> out;
  out.reserve(json.size());
  std::string joined;
  for (const auto& merge : json.raw()) {
    std::string_view left, right;
    if (merge.is_string()) {
      const std::string_view line = merge.get_ref<const std::string&>();
      const size_t space = line.find(' ');
      if (space != std::string_view::npos && line.find(' ', space + 1) == std::string_view::npos)
        left = line.substr(0, space), right = line.substr(space + 1);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      left = merge[0].get_ref<const std::string&>();
      right = merge[1].get_ref<const std::string&>();
    }
    if (left.empty() || right.size() <= prefix)
      json.refuse("merge ", out.size(), " is ",
                  merge.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(0, 100),
                  "; expected two tokens");
    joined.assign(left).append(right.substr(prefix));
    const Merge ids{vocabulary.find(left), vocabulary.find(right), vocabulary.find(joined)};
    if (ids.left < 0 || ids.right < 0 || ids.merged < 0)
      json.refuse("merge ", out.size(), " joins '", left.substr(0, 100), "' and '", right.substr(0, 100), "'; '",
                  (ids.left < 0    ? left
                   : ids.right < 0 ? right
                                   : std::string_view(joined)).substr(0, 100),
                  "' is not in model.vocab");
    out.push_back(ids);
  }
  return out;
}

void read_added_tokens(const JsonView& json, Pipeline& parts) {
  json.check_array();
  Vocabulary& vocabulary = parts.vocabulary;
  // Room for all of them first: the index holds views of the texts.
  size_t size = vocabulary.texts.size();
  const int64_t largest = largest_id(size + json.size());
  for (size_t i = 0; i < json.size(); ++i)
    size = std::max(size, static_cast<size_t>(json.at(i).need("id").integer(0, largest)) + 1);
  vocabulary.texts.resize(size);
  vocabulary.types.resize(size, Type::unused);
  vocabulary.index();
  for (size_t i = 0; i < json.size(); ++i) {
    const JsonView token = json.at(i);
    const std::string& text = token.need("content").text();
    if (text.empty()) continue;
    auto id = static_cast<int32_t>(token.need("id").integer(0, largest));
    const bool special = token.flag("special", false);
    const int32_t known = vocabulary.find(text);
    if (known >= 0) {
      id = known;
    } else {
      put_token(token, vocabulary, id, text);
      vocabulary.types[static_cast<size_t>(id)] = Type::user_defined;
      vocabulary.ids.emplace(vocabulary.text(id), id);
    }
    if (special) vocabulary.types[static_cast<size_t>(id)] = Type::control;
    Pipeline::Added added{id, {}, token.flag("normalized", !special)};
    added.flags.always = !special;
    added.flags.single_word = token.flag("single_word", false);
    added.flags.left = token.flag("lstrip", false);
    added.flags.right = token.flag("rstrip", false);
    parts.added.push_back(added);
  }
}

std::string model_type(const JsonView& model) {
  if (const auto type = model.find("type")) return type->text();
  if (model.find("merges")) return "BPE";
  const JsonView vocab = model.need("vocab");
  if (vocab.is_array()) return "Unigram";
  return model.find("continuing_subword_prefix") ? "WordPiece" : "WordLevel";
}

int32_t unknown_token(const JsonView& model, const Vocabulary& vocabulary) {
  const auto text = model.find("unk_token");
  if (!text || text->text().empty()) return -1;
  const int32_t id = vocabulary.find(text->text());
  if (id < 0) text->refuse("'", text->text().substr(0, 60), "' is not in the vocabulary");
  return id;
}

void mark_byte_tokens(Vocabulary& vocabulary) {
  for (int32_t id = 0; id < vocabulary.size(); ++id)
    if (vocabulary.type(id) == Type::normal && spelled_byte(vocabulary.text(id)) >= 0)
      vocabulary.types[static_cast<size_t>(id)] = Type::byte;
}

/// Reads model and added_tokens, in the order that the ids need.
void read_model(const JsonView& root, bool byte_level, Pipeline& parts) {
  const JsonView model = root.need("model");
  const std::string type = model_type(model);
  Vocabulary& vocabulary = parts.vocabulary;
  const JsonView vocab = model.need("vocab");
  std::vector<double> scores;
  if (type == "Unigram")
    scores = read_token_scores(vocab, vocabulary);
  else
    read_token_map(vocab, vocabulary);
  if (const auto added = root.find("added_tokens")) read_added_tokens(*added, parts);
  vocabulary.index();
  if (vocabulary.size() == 0) vocab.refuse("has no tokens");
  const bool byte_fallback = model.flag("byte_fallback", false);
  if (byte_fallback) mark_byte_tokens(vocabulary);
  if (byte_level && type != "BPE")
    model.refuse("the pre-tokenizer ByteLevel with the model '", type, "' is not supported");
  if (type == "BPE") {
    BpeOptions options;
    options.byte_level = byte_level;
    options.whole_words = model.flag("ignore_merges", false);
    options.fuse_unknown = model.flag("fuse_unk", false);
    options.byte_fallback = byte_fallback;
    options.unknown = unknown_token(model, vocabulary);
    options.prefix = model.text("continuing_subword_prefix", "");
    options.suffix = model.text("end_of_word_suffix", "");
    const auto merges = read_json_merges(model.need("merges"), vocabulary, options.prefix.size());
    parts.kind = "gpt2";
    parts.model = make_bpe(vocabulary, options, merges);
  } else if (type == "Unigram") {
    UnigramOptions options;
    if (const auto id = model.find("unk_id"))
      options.unknown = static_cast<int32_t>(id->integer(0, static_cast<int64_t>(scores.size()) - 1));
    options.byte_fallback = byte_fallback;
    scores.resize(static_cast<size_t>(vocabulary.size()), 0.0);
    parts.kind = "t5";
    parts.model = model.guard([&] { return make_unigram(vocabulary, options, scores); });
  } else if (type == "WordPiece") {
    WordPieceOptions options;
    options.unknown = unknown_token(model, vocabulary);
    options.prefix = model.text("continuing_subword_prefix", "##");
    if (const auto most = model.find("max_input_chars_per_word"))
      options.longest_word = static_cast<size_t>(most->integer(0, 1 << 20));
    parts.kind = "bert";
    parts.model = model.guard([&] { return make_wordpiece(vocabulary, options); });
  } else if (type == "WordLevel") {
    parts.kind = "words";
    parts.model = make_wordlevel(vocabulary, unknown_token(model, vocabulary));
  } else {
    model.refuse("unknown model '", type.substr(0, 60), "'; known: BPE, Unigram, WordPiece, WordLevel");
  }
}

int32_t template_id(const JsonView& id, const Vocabulary& vocabulary) {
  return static_cast<int32_t>(id.integer(0, vocabulary.size() - 1));
}

void read_post_processor(const JsonView& json, Pipeline& parts, int depth) {
  if (depth > 16) json.refuse("nested more than 16 deep");
  const std::string type = json.need("type").text();
  if (type == "Sequence") {
    const JsonView list = json.need("processors");
    list.check_array();
    for (size_t i = 0; i < list.size(); ++i) read_post_processor(list.at(i), parts, depth + 1);
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    for (const char* key : {"cls", "sep"}) {
      const JsonView pair = json.need(key);
      if (!pair.is_array() || pair.size() != 2) pair.refuse("expected a text and an id");
      const int32_t id = template_id(pair.at(1), parts.vocabulary);
      if (*key == 'c')
        parts.prefix.insert(parts.prefix.begin(), id);
      else
        parts.suffix.push_back(id);
    }
  } else if (type == "TemplateProcessing") {
    const JsonView list = json.need("single");
    list.check_array();
    std::vector<int32_t> before;
    bool after = false;
    for (size_t i = 0; i < list.size(); ++i) {
      const JsonView item = list.at(i);
      if (item.find("Sequence")) {
        after = true;
        continue;
      }
      const std::string& name = item.need("SpecialToken").need("id").text();
      const JsonView ids = json.need("special_tokens").need(name).need("ids");
      ids.check_array();
      for (size_t k = 0; k < ids.size(); ++k)
        (after ? parts.suffix : before).push_back(template_id(ids.at(k), parts.vocabulary));
    }
    parts.prefix.insert(parts.prefix.begin(), before.begin(), before.end());
  } else if (type != "ByteLevel") {
    json.refuse("unknown post-processor '", type.substr(0, 60), "'");
  }
}

}  // namespace

std::unique_ptr<Pipeline> read_tokenizer_json(const std::string& path) {
  const nlohmann::json json = parse_json_file(path);
  const JsonView root(json, path, "");
  if (!root.is_object()) root.refuse("expected an object");
  auto parts = std::make_unique<Pipeline>();
  parts->vocabulary.file = path;
  parts->user_defined_raw = false;
  bool byte_level = false;
  if (const auto normalizer = root.find("normalizer")) read_normalizer(*normalizer, parts->normalizer);
  if (const auto pre = root.find("pre_tokenizer")) read_pretokenizer(*pre, parts->pre, byte_level);
  read_model(root, byte_level, *parts);
  if (const auto post = root.find("post_processor")) read_post_processor(*post, *parts, 0);
  if (const auto decoder = root.find("decoder"))
    read_decoder(*decoder, parts->detokenizer);
  else
    parts->detokenizer.add(Detokenizer::SpaceBefore{});
  return parts;
}

}  // namespace nibble::models
