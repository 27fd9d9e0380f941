// SPDX-License-Identifier: Apache-2.0
#include "models/text/text_config.h"

#include <algorithm>
#include <filesystem>

#include "models/io/gguf.h"
#include "models/text/json_reader.h"

namespace nibble::models {

namespace {

namespace fs = std::filesystem;
using Type = Vocabulary::Type;
constexpr int64_t most_tokens = (1 << 24) - 1;

bool is_file(const std::string& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

/// "text" or {"content": "text", ...}
std::optional<std::string> token_text(const JsonView& json, std::string_view key) {
  const auto found = json.find(key);
  if (!found) return std::nullopt;
  if (found->is_object()) return found->need("content").text();
  return found->text();
}

TextConfig::AddedToken added_token(const JsonView& json, int32_t id) {
  TextConfig::AddedToken out;
  out.id = id;
  out.text = json.need("content").text();
  out.special = json.flag("special", false);
  out.normalized = json.flag("normalized", !out.special);
  out.single_word = json.flag("single_word", false);
  out.lstrip = json.flag("lstrip", false);
  out.rstrip = json.flag("rstrip", false);
  return out;
}

void read_template(const JsonView& json, TextConfig& out) {
  if (json.is_string()) {
    out.chat_template = json.text();
    return;
  }
  json.check_array();
  for (size_t i = 0; i < json.size(); ++i) {
    const std::string name = json.at(i).need("name").text();
    const std::string text = json.at(i).need("template").text();
    if (name == "default")
      out.chat_template = text;
    else
      out.chat_templates.emplace_back(name, text);
  }
}

std::optional<bool> optional_flag(const JsonView& json, std::string_view key) {
  const auto found = json.find(key);
  return found ? std::optional<bool>(found->flag()) : std::nullopt;
}

int32_t id_of_key(const JsonView& json, const std::string& key) {
  int64_t id = 0;
  const bool digits = !key.empty() && key.size() < 9 && key.find_first_not_of("0123456789") == std::string::npos;
  if (digits) id = std::stoll(key);
  if (!digits || id > most_tokens) json.refuse("'", key.substr(0, 40), "' is not a token id");
  return static_cast<int32_t>(id);
}

void read_config_file(const std::string& path, TextConfig& out) {
  const nlohmann::json json = parse_json_file(path);
  const JsonView root(json, path, "");
  if (!root.is_object()) root.refuse("expected an object");
  out.tokenizer_class = root.text("tokenizer_class", "");
  out.bos = token_text(root, "bos_token");
  out.eos = token_text(root, "eos_token");
  out.unknown = token_text(root, "unk_token");
  out.add_bos = optional_flag(root, "add_bos_token");
  out.add_eos = optional_flag(root, "add_eos_token");
  out.lowercase = optional_flag(root, "do_lower_case");
  out.add_prefix_space = optional_flag(root, "add_prefix_space");
  if (const auto tokens = root.find("added_tokens_decoder")) {
    if (!tokens->is_object()) tokens->refuse("expected an object");
    for (const auto& [key, value] : tokens->raw().items())
      out.added.push_back(added_token(tokens->need(key), id_of_key(*tokens, key)));
  }
  if (const auto chat = root.find("chat_template")) read_template(*chat, out);
}

void read_special_tokens_map(const std::string& path, TextConfig& out) {
  const nlohmann::json json = parse_json_file(path);
  const JsonView root(json, path, "");
  if (!out.bos) out.bos = token_text(root, "bos_token");
  if (!out.eos) out.eos = token_text(root, "eos_token");
  if (!out.unknown) out.unknown = token_text(root, "unk_token");
}

void read_added_tokens_file(const std::string& path, TextConfig& out) {
  const nlohmann::json json = parse_json_file(path);
  const JsonView root(json, path, "");
  if (!root.is_object()) root.refuse("expected an object");
  for (const auto& [text, value] : json.items()) {
    TextConfig::AddedToken token;
    token.text = text;
    token.id = static_cast<int32_t>(root.need(text).integer(0, most_tokens));
    out.added.push_back(token);
  }
}

void read_end_ids(const std::string& path, TextConfig& out) {
  const nlohmann::json json = parse_json_file(path);
  const JsonView root(json, path, "");
  if (!root.is_object()) root.refuse("expected an object");
  const auto ids = root.find("eos_token_id");
  if (!ids) return;
  if (!ids->is_array()) {
    out.end_ids.push_back(ids->integer(-1, most_tokens));
    return;
  }
  for (size_t i = 0; i < ids->size(); ++i) out.end_ids.push_back(ids->at(i).integer(-1, most_tokens));
}

void read_template_files(const std::string& folder, TextConfig& out) {
  if (const std::string path = folder + "/chat_template.json"; is_file(path) && out.chat_template.empty()) {
    const nlohmann::json json = parse_json_file(path);
    const JsonView root(json, path, "");
    if (const auto chat = root.find("chat_template")) read_template(*chat, out);
  }
  if (const std::string path = folder + "/chat_template.jinja"; is_file(path))
    out.chat_template = read_whole_file(path, 16 << 20);
  std::error_code error;
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder + "/additional_chat_templates", error))
    if (entry.path().extension() == ".jinja") names.push_back(entry.path().stem().string());
  std::sort(names.begin(), names.end());
  for (const std::string& name : names)
    out.chat_templates.emplace_back(
        name, read_whole_file(folder + "/additional_chat_templates/" + name + ".jinja", 16 << 20));
}

int32_t find_token(const Pipeline& parts, const std::optional<std::string>& text) {
  return text && !text->empty() ? parts.vocabulary.find(*text) : -1;
}

void put_or_drop(std::vector<int32_t>& around, int32_t id, bool wanted, bool front) {
  if (id < 0) return;
  const auto found = std::find(around.begin(), around.end(), id);
  if (!wanted && found != around.end()) around.erase(found);
  if (wanted && found == around.end()) around.insert(front ? around.begin() : around.end(), id);
}

/// ChatGLM's own tokens stand behind the pieces, and two of them before every text.
void add_chatglm_tokens(Pipeline& parts) {
  for (const char* text : {"[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"}) {
    parts.vocabulary.index();
    if (parts.vocabulary.find(text) >= 0) continue;
    parts.added.push_back({parts.vocabulary.size(), {}, false});
    parts.vocabulary.texts.emplace_back(text);
    parts.vocabulary.types.push_back(Type::control);
  }
  parts.vocabulary.index();
  for (const char* text : {"[gMASK]", "sop"}) parts.prefix.push_back(parts.vocabulary.find(text));
}

std::unique_ptr<Pipeline> read_any_file(const std::string& path, const TextConfig& config) {
  const std::string name = path.substr(path.find_last_of('/') + 1);
  if (name.ends_with(".tiktoken")) return read_tiktoken(path, config);
  if (name == "vocab.json")
    return read_gpt2_files(path, path.substr(0, path.size() - name.size()) + "merges.txt", config);
  if (name.ends_with(".json")) return read_tokenizer_json(path);
  if (name.ends_with(".txt")) return read_bert_vocabulary(path, config);
  if (looks_like_tiktoken(read_whole_file(path))) return read_tiktoken(path, config);
  return read_sentencepiece(path, config);
}

bool adds_bos_by_class(const TextConfig& config) {
  for (const char* name : {"Llama", "CodeLlama", "Gemma", "InternLM", "Yi"})
    if (config.tokenizer_class.starts_with(name)) return true;
  return false;
}

}  // namespace

TextConfig read_text_config(const std::string& folder) {
  TextConfig out;
  const auto path = [&](const char* name) { return folder + "/" + name; };
  if (is_file(path("tokenizer_config.json"))) read_config_file(path("tokenizer_config.json"), out);
  if (is_file(path("special_tokens_map.json"))) read_special_tokens_map(path("special_tokens_map.json"), out);
  if (out.added.empty() && is_file(path("added_tokens.json"))) read_added_tokens_file(path("added_tokens.json"), out);
  for (const char* name : {"generation_config.json", "config.json"})
    if (out.end_ids.empty() && is_file(path(name))) read_end_ids(path(name), out);
  read_template_files(folder, out);
  return out;
}

void add_configured_tokens(const TextConfig& config, const std::string& file, Pipeline& parts) {
  Vocabulary& vocabulary = parts.vocabulary;
  // Room for all of them first: the index holds views of the texts.
  size_t size = vocabulary.texts.size();
  const int64_t largest = largest_id(size + config.added.size());
  for (const TextConfig::AddedToken& token : config.added) {
    NIBBLE_CHECK(token.id <= largest, file, ": '", token.text.substr(0, 60), "' of the added tokens has the id ",
                 token.id, "; expected 0 to ", largest);
    if (vocabulary.find(token.text) < 0) size = std::max(size, static_cast<size_t>(token.id) + 1);
  }
  vocabulary.texts.resize(size);
  vocabulary.types.resize(size, Type::unused);
  vocabulary.index();
  for (const TextConfig::AddedToken& token : config.added) {
    if (token.text.empty()) continue;
    int32_t id = vocabulary.find(token.text);
    if (id < 0) {
      id = token.id;
      const auto at = static_cast<size_t>(id);
      // A reserved place may get a name.
      NIBBLE_CHECK(vocabulary.texts[at].empty() || vocabulary.types[at] != Type::normal, file, ": '",
                   token.text.substr(0, 60), "' of the added tokens has the id ", id, ", which is '",
                   vocabulary.texts[at].substr(0, 60), "'");
      vocabulary.ids.erase(vocabulary.texts[at]);
      vocabulary.texts[at] = token.text;
      vocabulary.types[at] = Type::user_defined;
      vocabulary.ids.emplace(vocabulary.texts[at], id);
    }
    Type& type = vocabulary.types[static_cast<size_t>(id)];
    if (token.special && type != Type::unknown) type = Type::control;
    Pipeline::Added added{id, {}, token.normalized};
    added.flags = {
        .always = !token.special, .single_word = token.single_word, .left = token.lstrip, .right = token.rstrip};
    std::erase_if(parts.added, [&](const Pipeline::Added& other) { return other.id == id; });
    parts.added.push_back(added);
  }
}

void apply_text_config(const TextConfig& config, Pipeline& parts) {
  Vocabulary& vocabulary = parts.vocabulary;
  if (const int32_t id = find_token(parts, config.bos); id >= 0) vocabulary.bos = id;
  if (const int32_t id = find_token(parts, config.eos); id >= 0) vocabulary.eos = id;
  if (const int32_t id = find_token(parts, config.unknown); id >= 0) vocabulary.unknown = id;
  if (vocabulary.bos < 0 && !parts.prefix.empty()) vocabulary.bos = parts.prefix.front();
  if (config.add_bos) put_or_drop(parts.prefix, vocabulary.bos, *config.add_bos, true);
  if (config.add_eos) put_or_drop(parts.suffix, vocabulary.eos, *config.add_eos, false);
  vocabulary.ends = {vocabulary.eos};
  for (int64_t id : config.end_ids)
    if (id < vocabulary.size()) vocabulary.ends.push_back(static_cast<int32_t>(id));
  vocabulary.find_ends();
}

namespace {

/// Names of the files other than tokenizer.json that hold a vocabulary, the one to read first.
std::vector<std::string> vocabulary_files(const std::string& folder) {
  std::vector<std::string> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".tiktoken")) found.push_back(name);
  }
  std::sort(found.begin(), found.end());
  for (const char* name :
       {"tokenizer.model", "tiktoken.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt"})
    if (is_file(folder + "/" + name)) found.emplace_back(name);
  return found;
}

}  // namespace

bool Tokenizer::folder_has_one(const std::string& folder) {
  return is_file(folder + "/tokenizer.json") || !vocabulary_files(folder).empty();
}

TextFolder Tokenizer::load_folder(const std::string& folder) {
  const TextConfig config = read_text_config(folder);
  const auto path = [&](const std::string& name) { return folder + "/" + name; };
  std::unique_ptr<Pipeline> parts;
  if (is_file(path("tokenizer.json"))) {
    parts = read_tokenizer_json(path("tokenizer.json"));
  } else {
    const std::vector<std::string> found = vocabulary_files(folder);
    NIBBLE_CHECK(!found.empty(), folder, ": no tokenizer.json, tokenizer.model, *.tiktoken, vocab.json or vocab.txt");
    parts = read_any_file(path(found.front()), config);
    if (config.tokenizer_class == "ChatGLMTokenizer") add_chatglm_tokens(*parts);
    if (!config.add_bos && adds_bos_by_class(config)) put_or_drop(parts->prefix, parts->vocabulary.bos, true, true);
  }
  apply_text_config(config, *parts);
  TextFolder out;
  out.chat_template = config.chat_template;
  out.chat_templates = config.chat_templates;
  out.tokenizer = make_tokenizer(std::move(parts));
  return out;
}

std::shared_ptr<const Tokenizer> Tokenizer::load(const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) return load_folder(path).tokenizer;
  NIBBLE_CHECK(is_file(path), path, ": there is no such file or folder");
  if (path.ends_with(".gguf")) return from_gguf(Gguf::open(path));
  std::unique_ptr<Pipeline> parts = read_any_file(path, {});
  apply_text_config({}, *parts);
  return make_tokenizer(std::move(parts));
}

}  // namespace nibble::models
