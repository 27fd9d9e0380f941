// SPDX-License-Identifier: Apache-2.0
// Vocabularies that are lists: tiktoken's ranks, GPT-2's vocab.json with merges.txt, BERT's vocab.txt.
#include <algorithm>
#include <charconv>

#include "models/text/base64.h"
#include "models/text/json_reader.h"
#include "models/text/pretokenizer_names.h"
#include "models/text/text_config.h"

namespace nibble::models {

namespace {

using Type = Vocabulary::Type;

/// Calls `each(line, number)` for the lines that are not empty.
template <class Each>
void for_lines(std::string_view text, const Each& each) {
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty()) each(line, number);
  }
}

void add_control(Pipeline& parts, const std::string& text) {
  parts.added.push_back({parts.vocabulary.size(), {}, false});
  parts.vocabulary.texts.push_back(text);
  parts.vocabulary.types.push_back(Type::control);
}

void add_regex(Pipeline& parts, const char* pattern) {
  parts.pre.add(RegexSplit{Regex(pattern), SplitBehavior::isolated, false});
}

/// The tokens that Qwen's first tokenizer puts behind its ranks.
void add_qwen_tokens(Pipeline& parts) {
  for (const char* text : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) add_control(parts, text);
  for (int i = 0; i < 205; ++i) add_control(parts, std::string("<|extra_").append(std::to_string(i)).append("|>"));
}

/// Those of Llama 3, in its original file.
void add_llama3_tokens(Pipeline& parts) {
  const auto reserved = [&](int from, int to) {
    for (int i = from; i < to; ++i)
      add_control(parts, std::string("<|reserved_special_token_").append(std::to_string(i)).append("|>"));
  };
  for (const char* text : {"<|begin_of_text|>", "<|end_of_text|>"}) add_control(parts, text);
  reserved(0, 4);
  for (const char* text : {"<|start_header_id|>", "<|end_header_id|>"}) add_control(parts, text);
  reserved(4, 5);
  add_control(parts, "<|eot_id|>");
  reserved(5, 251);
}

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

}  // namespace

bool looks_like_tiktoken(std::string_view bytes) {
  const std::string_view line = bytes.substr(0, std::min(bytes.find('\n'), size_t{200}));
  const size_t space = line.find(' ');
  if (space == std::string_view::npos || space == 0) return false;
  const auto is = [](char c) {
    return c == '+' || c == '/' || c == '=' || (is_word(static_cast<uint8_t>(c)) && c != '_');
  };
  return std::all_of(line.begin(), line.begin() + static_cast<ptrdiff_t>(space), is);
}

std::unique_ptr<Pipeline> read_tiktoken(const std::string& path, const TextConfig& config) {
  const std::string bytes = read_whole_file(path);
  auto parts = std::make_unique<Pipeline>();
  Vocabulary& vocabulary = parts->vocabulary;
  vocabulary.file = path;
  // each rank below has its line
  const size_t limit = std::min<size_t>(bytes.size(), 1u << 24);
  for_lines(bytes, [&](std::string_view line, size_t number) {
    const size_t space = line.find(' ');
    size_t rank = 0;
    const char* end = line.data() + line.size();
    const auto digits = space == std::string_view::npos
                            ? std::from_chars_result{line.data(), std::errc::invalid_argument}
                            : std::from_chars(line.data() + space + 1, end, rank);
    NIBBLE_CHECK(digits.ec == std::errc() && digits.ptr == end && rank < limit, path, ": line ", number,
                 ": expected a text in base64 and a rank below ", limit);
    std::string text;
    try {
      text = base64_decoded(line.substr(0, space));
    } catch (const Error& error) {
      fail(path, ": line ", number, ": ", error.what());
    }
    NIBBLE_CHECK(!text.empty() && text.size() <= 4096, path, ": line ", number, ": a token of ", text.size(),
                 " bytes; expected 1 to 4096");
    if (rank >= vocabulary.texts.size()) vocabulary.texts.resize(rank + 1);
    NIBBLE_CHECK(vocabulary.texts[rank].empty(), path, ": line ", number, ": rank ", rank, " is there twice");
    vocabulary.texts[rank] = std::move(text);
  });
  const int32_t ranks = vocabulary.size();
  for (int32_t id = 0; id < ranks; ++id)
    NIBBLE_CHECK(!vocabulary.text(id).empty(), path, ": rank ", id, " is missing");
  NIBBLE_CHECK(ranks > 0, path, ": no tokens");
  vocabulary.types.assign(vocabulary.texts.size(), Type::normal);
  const bool qwen =
      contains(path.substr(path.find_last_of('/') + 1), "qwen") || config.tokenizer_class == "QWenTokenizer";
  const bool kimi = config.tokenizer_class == "TikTokenTokenizer";
  if (qwen) {
    parts->normalizer.add(NormalForm::nfc);
    add_qwen_tokens(*parts);
  } else if (config.added.empty() && ranks == 128000) {
    add_llama3_tokens(*parts);
  }
  add_regex(*parts, qwen ? qwen2_pattern : kimi ? kimi_pattern : llama3_pattern);
  vocabulary.index();
  parts->kind = "gpt2";
  add_configured_tokens(config, path, *parts);
  parts->model = make_ranked_bpe(vocabulary, ranks, true);
  return parts;
}

std::unique_ptr<Pipeline> read_gpt2_files(const std::string& vocab, const std::string& merges,
                                          const TextConfig& config) {
  const nlohmann::json json = parse_json_file(vocab);
  NIBBLE_CHECK(json.is_object() && !json.empty(), vocab, ": expected an object of texts and ids");
  auto parts = std::make_unique<Pipeline>();
  Vocabulary& vocabulary = parts->vocabulary;
  vocabulary.file = vocab;
  const int64_t largest = largest_id(json.size());
  for (const auto& [text, id] : json.items()) {
    const bool fits =
        id.is_number_integer() && id.get<double>() >= 0 && id.get<double>() <= static_cast<double>(largest);
    NIBBLE_CHECK(fits && text.size() <= 4096, vocab, ": '", text.substr(0, 60), "': expected an id from 0 to ",
                 largest);
    const auto at = id.get<size_t>();
    if (at >= vocabulary.texts.size()) vocabulary.texts.resize(at + 1);
    NIBBLE_CHECK(vocabulary.texts[at].empty(), vocab, ": two tokens have the id ", at);
    vocabulary.texts[at] = text;
  }
  vocabulary.types.assign(vocabulary.texts.size(), Type::normal);
  vocabulary.index();
  std::vector<Merge> pairs;
  const std::string lines = read_whole_file(merges);
  std::string joined;
  for_lines(lines, [&](std::string_view line, size_t number) {
    if (line.starts_with("#version")) return;
    const size_t space = line.find(' ');
    const std::string_view left = line.substr(0, space),
                           right = space == std::string_view::npos ? "" : line.substr(space + 1);
    joined.assign(left).append(right);
    const Merge ids{vocabulary.find(left), vocabulary.find(right), vocabulary.find(joined)};
    NIBBLE_CHECK(ids.left >= 0 && ids.right >= 0 && ids.merged >= 0, merges, ": line ", number, " is '",
                 line.substr(0, 100), "'; expected two tokens that are a token of ", vocab, " together");
    pairs.push_back(ids);
  });
  const bool qwen = contains(config.tokenizer_class, "Qwen2");
  if (qwen) parts->normalizer.add(NormalForm::nfc);
  if (config.add_prefix_space.value_or(false)) parts->pre.add(SpacePrefix{});
  add_regex(*parts, qwen ? qwen2_pattern : gpt2_pattern);
  BpeOptions options;
  options.byte_level = true;
  // "</s>" and the like may be ordinary tokens: only what the configuration names is more than that.
  for (const auto& text : {std::optional<std::string>("<|endoftext|>"), config.bos, config.eos, config.unknown}) {
    const int32_t id = text ? vocabulary.find(*text) : -1;
    if (id < 0 || vocabulary.type(id) == Type::control) continue;
    vocabulary.types[static_cast<size_t>(id)] = Type::control;
    parts->added.push_back({id, {}, false});
  }
  parts->kind = "gpt2";
  parts->detokenizer.add(Detokenizer::ByteLevel{});
  add_configured_tokens(config, vocab, *parts);
  parts->model = make_bpe(vocabulary, options, pairs);
  return parts;
}

std::unique_ptr<Pipeline> read_bert_vocabulary(const std::string& path, const TextConfig& config) {
  const std::string bytes = read_whole_file(path);
  auto parts = std::make_unique<Pipeline>();
  Vocabulary& vocabulary = parts->vocabulary;
  vocabulary.file = path;
  for_lines(bytes, [&](std::string_view line, size_t number) {
    NIBBLE_CHECK(line.size() <= 4096, path, ": line ", number, " has ", line.size(), " bytes; at most 4096");
    vocabulary.texts.emplace_back(line);
  });
  NIBBLE_CHECK(!vocabulary.texts.empty(), path, ": no tokens");
  vocabulary.types.assign(vocabulary.texts.size(), Type::normal);
  vocabulary.index();
  for (const char* text : {"[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"}) {
    const int32_t id = vocabulary.find(text);
    if (id < 0) continue;
    vocabulary.types[static_cast<size_t>(id)] = Type::control;
    parts->added.push_back({id, {}, false});
  }
  vocabulary.unknown = vocabulary.find("[UNK]");
  BertRules rules;
  rules.lowercase = rules.strip_accents = config.lowercase.value_or(true);
  parts->normalizer.add(rules);
  parts->pre.add(ClassSplit{is_white_space, SplitBehavior::removed});
  parts->pre.add(
      ClassSplit{[](uint32_t c) { return is_ascii_symbol(c) || is_punctuation(c); }, SplitBehavior::isolated});
  WordPieceOptions options;
  options.unknown = vocabulary.unknown;
  parts->kind = "bert";
  parts->detokenizer.add(Detokenizer::WordPiece{"##", true});
  if (const int32_t cls = vocabulary.find("[CLS]"); cls >= 0) parts->prefix = {cls};
  if (const int32_t sep = vocabulary.find("[SEP]"); sep >= 0) parts->suffix = {sep};
  add_configured_tokens(config, path, *parts);
  parts->model = make_wordpiece(vocabulary, options);
  return parts;
}

}  // namespace nibble::models
