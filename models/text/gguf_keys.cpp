// SPDX-License-Identifier: Apache-2.0
#include "models/text/gguf_keys.h"

#include <filesystem>
#include <sstream>

#include <nlohmann/json.hpp>

#include "models/model_source.h"
#include "models/text/json_reader.h"
#include "models/text/pretokenizer_names.h"
#include "models/text/text_config.h"

namespace nibble::models {

namespace {

using Values = std::vector<std::pair<std::string, GgufValue>>;
using nlohmann::json;

std::string key(std::string_view name) { return message("tokenizer.ggml.", name); }

/// Texts, types and special tokens; ids that the vocabulary lacks are filled up.
void add_vocabulary(const Vocabulary& vocabulary, int size, Values& out) {
  NIBBLE_CHECK(vocabulary.size() <= size, vocabulary.file, ": ", vocabulary.size(), " tokens for an embedding of ",
               size, " rows");
  std::vector<std::string> texts = vocabulary.texts;
  std::vector<int64_t> types;
  for (int32_t id = 0; id < vocabulary.size(); ++id)
    types.push_back(texts[static_cast<size_t>(id)].empty() ? 5 : static_cast<int64_t>(vocabulary.type(id)));
  for (int id = vocabulary.size(); id < size; ++id) {
    texts.push_back(message("[PAD", id, "]"));
    types.push_back(static_cast<int64_t>(Vocabulary::Type::unused));
  }
  for (size_t id = 0; id < texts.size(); ++id)
    if (texts[id].empty()) texts[id] = message("[PAD", id, "]");
  out.emplace_back(key("tokens"), gguf_value(std::move(texts)));
  out.emplace_back(key("token_type"), gguf_integers(std::move(types)));
  const auto add_id = [&](const char* name, int32_t id) {
    if (id >= 0) out.emplace_back(key(name), gguf_value(static_cast<uint32_t>(id)));
  };
  add_id("bos_token_id", vocabulary.bos);
  add_id("eos_token_id", vocabulary.eos);
  add_id("unknown_token_id", vocabulary.unknown);
  for (const char* end : {"<|eot_id|>", "<|im_end|>", "<end_of_turn>"})
    if (const int32_t id = vocabulary.find(end); id >= 0 && id != vocabulary.eos) {
      add_id("eot_token_id", id);
      break;
    }
}

/// The patterns that a pre_tokenizer cuts by, in turn.
void collect_patterns(const json& step, const std::string& file, std::vector<std::string>& out) {
  if (step.is_null()) return;
  const std::string type = step.value("type", "");
  if (type == "Sequence") {
    for (const json& inner : step.value("pretokenizers", json::array())) collect_patterns(inner, file, out);
  } else if (type == "Split" && step.contains("pattern") && step["pattern"].contains("Regex") &&
             step["pattern"]["Regex"].is_string()) {
    out.push_back(step["pattern"]["Regex"].get<std::string>());
  } else if (type == "Digits") {
    out.emplace_back(step.value("individual_digits", false) ? "\\p{N}" : "\\p{N}+");
  } else if (type == "ByteLevel") {
    if (step.value("use_regex", true)) out.emplace_back(gpt2_pattern);
  } else {
    fail(file, ": pre_tokenizer of type '", printable(type), "' can't be written as GGUF");
  }
}

void add_merges(const json& model, const std::string& file, Values& out) {
  std::vector<std::string> merges;
  for (const json& merge : model.value("merges", json::array())) {
    if (merge.is_string()) {
      merges.push_back(merge.get<std::string>());
    } else {
      NIBBLE_CHECK(merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string(), file,
                   ": model.merges: expected pairs");
      merges.push_back(message(merge[0].get<std::string>(), " ", merge[1].get<std::string>()));
    }
  }
  out.emplace_back(key("merges"), gguf_value(std::move(merges)));
}

Values bpe_keys(const std::string& folder, const std::string& file, int vocab) {
  const json tokenizer = parse_json_file(file);
  const json model = tokenizer.value("model", json::object());
  NIBBLE_CHECK(model.value("type", "BPE") == "BPE" && !model.value("byte_fallback", false), file,
               ": only byte-level BPE can be written as GGUF without a tokenizer.model");
  auto parts = read_tokenizer_json(file);
  apply_text_config(read_text_config(folder), *parts);
  std::vector<std::string> patterns;
  collect_patterns(tokenizer.value("pre_tokenizer", json()), file, patterns);
  const std::string_view pre = pretokenizer_name_of(patterns);
  std::string all;
  for (const std::string& pattern : patterns) all += message(all.empty() ? "" : ", then ", printable(pattern, 200));
  NIBBLE_CHECK(!pre.empty(), file, ": GGUF has no name for the pre-tokenizer that cuts by ", all);
  Values out = {{key("model"), gguf_value(std::string("gpt2"))}, {key("pre"), gguf_value(std::string(pre))}};
  add_vocabulary(parts->vocabulary, vocab, out);
  add_merges(model, file, out);
  return out;
}

/// vocab.json and merges.txt; how words are cut only the class of the tokenizer says.
Values gpt2_keys(const std::string& folder, int vocab) {
  const TextConfig config = read_text_config(folder);
  const bool qwen = config.tokenizer_class.starts_with("Qwen2Tokenizer");
  NIBBLE_CHECK(qwen || config.tokenizer_class.starts_with("GPT2Tokenizer"), folder, ": tokenizer_class '",
               printable(config.tokenizer_class),
               "' with merges.txt can't be written as GGUF: expected Qwen2Tokenizer or GPT2Tokenizer");
  auto parts = read_gpt2_files(folder + "/vocab.json", folder + "/merges.txt", config);
  apply_text_config(config, *parts);
  Values out = {{key("model"), gguf_value(std::string("gpt2"))},
                {key("pre"), gguf_value(std::string(qwen ? "qwen2" : "gpt-2"))}};
  add_vocabulary(parts->vocabulary, vocab, out);
  std::vector<std::string> merges;
  std::istringstream lines(read_whole_file(folder + "/merges.txt"));
  for (std::string line; std::getline(lines, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (!line.empty() && !line.starts_with("#version")) merges.push_back(line);
  }
  out.emplace_back(key("merges"), gguf_value(std::move(merges)));
  return out;
}

Values sentencepiece_keys(const std::string& folder, const std::string& file, int vocab) {
  const TextConfig config = read_text_config(folder);
  std::vector<float> scores;
  bool space_prefix = true;
  auto parts = read_sentencepiece(file, config, &scores, &space_prefix);
  NIBBLE_CHECK(parts->kind == "llama", file, ": only SentencePiece of the kind BPE can be written as GGUF");
  apply_text_config(config, *parts);
  Values out = {{key("model"), gguf_value(std::string("llama"))}, {key("pre"), gguf_value(std::string("default"))}};
  add_vocabulary(parts->vocabulary, vocab, out);
  std::vector<double> all(scores.begin(), scores.end());
  all.resize(static_cast<size_t>(vocab), -1000.0);
  out.emplace_back(key("scores"), gguf_floats(std::move(all)));
  out.emplace_back(key("add_space_prefix"), gguf_value(space_prefix));
  return out;
}

}  // namespace

Values tokenizer_keys(const std::string& folder, int vocab) {
  namespace fs = std::filesystem;
  const std::string pieces = folder + "/tokenizer.model", json_file = folder + "/tokenizer.json";
  if (!Tokenizer::folder_has_one(folder)) return {};
  Values out;
  if (fs::exists(pieces) && !looks_like_tiktoken(read_whole_file(pieces)))
    out = sentencepiece_keys(folder, pieces, vocab);
  else if (fs::exists(json_file)) out = bpe_keys(folder, json_file, vocab);
  else if (fs::exists(folder + "/vocab.json") && fs::exists(folder + "/merges.txt")) out = gpt2_keys(folder, vocab);
  else
    fail(folder,
         ": its tokenizer can't be written as GGUF: expected tokenizer.model (SentencePiece), tokenizer.json, or "
         "vocab.json with merges.txt");
  const TextFolder text = Tokenizer::load_folder(folder);
  out.emplace_back(key("add_bos_token"), gguf_value(text.tokenizer->adds_bos()));
  out.emplace_back(key("add_eos_token"), gguf_value(text.tokenizer->adds_eos()));
  if (!text.chat_template.empty()) out.emplace_back("tokenizer.chat_template", gguf_value(text.chat_template));
  return out;
}

}  // namespace nibble::models
