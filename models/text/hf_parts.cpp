// SPDX-License-Identifier: Apache-2.0
#include "models/text/hf_parts.h"

#include "models/text/json_reader.h"
#include "models/text/base64.h"
#include "models/text/pretokenizer_names.h"

namespace nibble::models {

namespace {

constexpr int deepest = 16;

void check_depth(const JsonView& json, int depth) {
  if (depth > deepest) json.refuse("nested more than ", deepest, " deep");
}

SplitBehavior behavior(const JsonView& json) {
  const std::string& name = json.text();
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  json.refuse("unknown behavior '", name.substr(0, 60), "'");
}

/// {"String": "..."} or {"Regex": "..."}; `literal` gets the string of the first.
Regex pattern(const JsonView& json, std::string& literal) {
  if (const auto text = json.find("String")) {
    literal = text->text();
    return Regex(Regex::quoted(literal));
  }
  const JsonView regex = json.need("Regex");
  return regex.guard([&] { return Regex(regex.text()); });
}

std::string one_character(const JsonView& json, std::string_view key, std::string_view fallback) {
  const std::string text = json.text(key, fallback);
  if (text.empty() || front_code_point(text).length != text.size()) json.refuse(key, " is not one character");
  return text;
}

MetaspaceSplit::Prefix prefix_scheme(const JsonView& json) {
  using Prefix = MetaspaceSplit::Prefix;
  if (const auto scheme = json.find("prepend_scheme")) {
    const std::string& name = scheme->text();
    if (name == "always") return Prefix::always;
    if (name == "first") return Prefix::first;
    if (name == "never") return Prefix::never;
    scheme->refuse("unknown scheme '", name.substr(0, 60), "'");
  }
  return json.flag("add_prefix_space", true) ? Prefix::always : Prefix::never;
}

bool is_bert_punctuation(uint32_t c) { return is_ascii_symbol(c) || is_punctuation(c); }

}  // namespace

void read_normalizer(const JsonView& json, Normalizer& out, int depth) {
  check_depth(json, depth);
  const std::string type = json.need("type").text();
  if (type == "Sequence") {
    const JsonView list = json.need("normalizers");
    list.check_array();
    for (size_t i = 0; i < list.size(); ++i) read_normalizer(list.at(i), out, depth + 1);
  } else if (type == "NFC") {
    out.add(NormalForm::nfc);
  } else if (type == "NFD") {
    out.add(NormalForm::nfd);
  } else if (type == "NFKC") {
    out.add(NormalForm::nfkc);
  } else if (type == "NFKD") {
    out.add(NormalForm::nfkd);
  } else if (type == "Lowercase") {
    out.add(SimpleRule::lowercase);
  } else if (type == "StripAccents") {
    out.add(SimpleRule::strip_accents);
  } else if (type == "Nmt") {
    out.add(SimpleRule::nmt);
  } else if (type == "ByteLevel") {
    out.add(SimpleRule::byte_level);
  } else if (type == "Strip") {
    out.add(StripRule{json.flag("strip_left", true), json.flag("strip_right", true)});
  } else if (type == "Prepend") {
    out.add(Normalizer::Prepend{json.need("prepend").text()});
  } else if (type == "Replace") {
    std::string literal;
    Regex regex = pattern(json.need("pattern"), literal);
    out.add(ReplaceRule{std::move(regex), literal, json.need("content").text()});
  } else if (type == "BertNormalizer") {
    BertRules rules;
    rules.clean_text = json.flag("clean_text", true);
    rules.handle_ideographs = json.flag("handle_chinese_chars", true);
    rules.lowercase = json.flag("lowercase", true);
    rules.strip_accents = json.flag("strip_accents", rules.lowercase);
    out.add(rules);
  } else if (type == "Precompiled") {
    const JsonView blob = json.need("precompiled_charsmap");
    blob.guard([&] { out.add(Normalizer::Graphemes{Charsmap(base64_decoded(blob.text()))}); });
  } else {
    json.refuse("unknown normalizer '", type.substr(0, 60), "'");
  }
}

void read_pretokenizer(const JsonView& json, PreTokenizer& out, bool& byte_level, int depth) {
  check_depth(json, depth);
  const std::string type = json.need("type").text();
  if (byte_level) json.refuse("a pre-tokenizer after ByteLevel is not supported");
  if (type == "Sequence") {
    const JsonView list = json.need("pretokenizers");
    list.check_array();
    for (size_t i = 0; i < list.size(); ++i) read_pretokenizer(list.at(i), out, byte_level, depth + 1);
  } else if (type == "ByteLevel") {
    if (json.flag("add_prefix_space", true)) out.add(SpacePrefix{});
    if (json.flag("use_regex", true)) out.add(RegexSplit{Regex(gpt2_pattern), SplitBehavior::isolated, false});
    byte_level = true;
  } else if (type == "Split") {
    std::string literal;
    Regex regex = pattern(json.need("pattern"), literal);
    out.add(RegexSplit{std::move(regex), behavior(json.need("behavior")), json.flag("invert", false)});
  } else if (type == "Whitespace") {
    out.add(WordSplit{});
  } else if (type == "WhitespaceSplit") {
    out.add(ClassSplit{is_white_space, SplitBehavior::removed});
  } else if (type == "BertPreTokenizer") {
    out.add(ClassSplit{is_white_space, SplitBehavior::removed});
    out.add(ClassSplit{is_bert_punctuation, SplitBehavior::isolated});
  } else if (type == "Digits") {
    const bool single = json.flag("individual_digits", false);
    out.add(ClassSplit{is_number, single ? SplitBehavior::isolated : SplitBehavior::contiguous});
  } else if (type == "Punctuation") {
    const auto how = json.find("behavior");
    out.add(ClassSplit{is_bert_punctuation, how ? behavior(*how) : SplitBehavior::isolated});
  } else if (type == "CharDelimiterSplit") {
    out.add(RegexSplit{Regex(Regex::quoted(one_character(json, "delimiter", ""))), SplitBehavior::removed, false});
  } else if (type == "Metaspace") {
    out.add(MetaspaceSplit{one_character(json, "replacement", SpaceBoundaries::mark), prefix_scheme(json),
                           json.flag("split", true)});
  } else {
    json.refuse("unknown pre-tokenizer '", type.substr(0, 60), "'");
  }
}

void read_decoder(const JsonView& json, Detokenizer& out, int depth) {
  check_depth(json, depth);
  const std::string type = json.need("type").text();
  if (type == "Sequence") {
    const JsonView list = json.need("decoders");
    list.check_array();
    for (size_t i = 0; i < list.size(); ++i) read_decoder(list.at(i), out, depth + 1);
  } else if (type == "ByteLevel") {
    out.add(Detokenizer::ByteLevel{});
  } else if (type == "ByteFallback") {
    out.add(Detokenizer::ByteFallback{});
  } else if (type == "Fuse") {
    out.fuse();
  } else if (type == "Metaspace") {
    out.add(Detokenizer::Metaspace{one_character(json, "replacement", SpaceBoundaries::mark),
                                   prefix_scheme(json) != MetaspaceSplit::Prefix::never});
  } else if (type == "WordPiece") {
    out.add(Detokenizer::WordPiece{json.text("prefix", "##"), json.flag("cleanup", true)});
  } else if (type == "BPEDecoder") {
    out.add(Detokenizer::WordEnd{json.text("suffix", "</w>")});
  } else if (type == "Strip") {
    out.add(Detokenizer::Strip{one_character(json, "content", " "),
                               static_cast<size_t>(json.need("start").integer(0, 1 << 20)),
                               static_cast<size_t>(json.need("stop").integer(0, 1 << 20))});
  } else if (type == "Replace") {
    out.add(Detokenizer::Replace{json.need("pattern").need("String").text(), json.need("content").text()});
  } else {
    json.refuse("unknown decoder '", type.substr(0, 60), "'");
  }
}

}  // namespace nibble::models
