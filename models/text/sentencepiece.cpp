// SPDX-License-Identifier: Apache-2.0
// tokenizer.model: SentencePiece's ModelProto, read by the field numbers of sentencepiece_model.proto.
#include <bit>
#include <cmath>

#include "models/text/json_reader.h"
#include "models/text/text_config.h"

namespace nibble::models {

namespace {

using Type = Vocabulary::Type;

/// The fields of one message, in order. Nothing is allocated; every length is compared with what is left.
class Fields {
 public:
  Fields(std::string_view bytes, const std::string& file, const char* message)
      : rest_(bytes), file_(file), message_(message) {}

  /// False at the end.
  bool next() {
    if (rest_.empty()) return false;
    const uint64_t tag = varint();
    number_ = static_cast<uint32_t>(tag >> 3);
    wire_ = static_cast<int>(tag & 7);
    bytes_ = {};
    value_ = 0;
    switch (wire_) {
      case 0:
        value_ = varint();
        return true;
      case 1:
        bytes_ = take(8);
        return true;
      case 2:
        bytes_ = take(varint());
        return true;
      case 5:
        bytes_ = take(4);
        return true;
      default:
        bad("has a field of an unknown wire type");
    }
  }
  uint32_t number() const { return number_; }
  std::string_view bytes() const {
    if (wire_ != 2) bad("has a number where bytes belong");
    return bytes_;
  }
  int64_t integer() const {
    if (wire_ != 0) bad("has bytes where a number belongs");
    return static_cast<int64_t>(value_);
  }
  float real() const {
    if (wire_ != 5) bad("has something else where a float belongs");
    uint32_t bits = 0;
    for (size_t i = 4; i-- > 0;) bits = bits << 8 | static_cast<uint8_t>(bytes_[i]);
    return std::bit_cast<float>(bits);
  }

 private:
  [[noreturn]] void bad(const char* what) const {
    fail(file_, ": not a SentencePiece model: ", message_, " ", what, " (field ", number_, ")");
  }
  uint64_t varint() {
    uint64_t out = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) bad("ends early");
      const auto byte = static_cast<uint8_t>(rest_[0]);
      rest_.remove_prefix(1);
      out |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return out;
    }
    bad("has a number of more than ten bytes");
  }
  std::string_view take(uint64_t length) {
    if (length > rest_.size()) bad("ends early");
    const std::string_view out = rest_.substr(0, static_cast<size_t>(length));
    rest_.remove_prefix(static_cast<size_t>(length));
    return out;
  }

  std::string_view rest_, bytes_;
  const std::string& file_;
  const char* message_;
  uint32_t number_ = 0;
  int wire_ = 0;
  uint64_t value_ = 0;
};

struct Spec {
  int64_t model = 1, bos = 1, eos = 2;
  bool byte_fallback = false;
};

void read_piece(std::string_view bytes, const std::string& file, Vocabulary& vocabulary, std::vector<float>& scores) {
  Fields fields(bytes, file, "a piece");
  std::string text;
  float score = 0;
  int64_t type = 1;
  while (fields.next()) {
    if (fields.number() == 1) text = fields.bytes();
    if (fields.number() == 2) score = fields.real();
    if (fields.number() == 3) type = fields.integer();
  }
  const size_t id = vocabulary.texts.size();
  NIBBLE_CHECK(id < 1u << 24, file, ": more than 16777215 pieces");
  NIBBLE_CHECK(text.size() <= 4096, file, ": piece ", id, " has ", text.size(), " bytes; at most 4096");
  NIBBLE_CHECK(!text.empty(), file, ": piece ", id, " is empty");
  NIBBLE_CHECK(type >= 1 && type <= 6, file, ": piece ", id, " has type ", type, "; expected 1 to 6");
  NIBBLE_CHECK(std::isfinite(score), file, ": piece ", id, " has the score ", score);
  NIBBLE_CHECK(type != 6 || spelled_byte(text) >= 0, file, ": byte piece ", id, " is '", text.substr(0, 60),
               "'; expected <0x00> to <0xFF>");
  vocabulary.texts.push_back(std::move(text));
  vocabulary.types.push_back(static_cast<Type>(type));
  scores.push_back(score);
}

void read_trainer(std::string_view bytes, const std::string& file, Spec& spec, SentencePieceRules& rules) {
  Fields fields(bytes, file, "the trainer's part");
  while (fields.next()) {
    if (fields.number() == 3) spec.model = fields.integer();
    if (fields.number() == 24) rules.space_as_suffix = fields.integer() != 0;
    if (fields.number() == 35) spec.byte_fallback = fields.integer() != 0;
    if (fields.number() == 41) spec.bos = static_cast<int32_t>(fields.integer());
    if (fields.number() == 42) spec.eos = static_cast<int32_t>(fields.integer());
  }
}

void read_rules(std::string_view bytes, const std::string& file, SentencePieceRules& rules) {
  Fields fields(bytes, file, "the normaliser's part");
  while (fields.next()) {
    if (fields.number() == 2) {
      try {
        rules.charsmap = Charsmap(fields.bytes());
      } catch (const Error& error) {
        fail(file, ": precompiled_charsmap: ", error.what());
      }
    }
    if (fields.number() == 3) rules.add_dummy_prefix = fields.integer() != 0;
    if (fields.number() == 4) rules.remove_extra_spaces = fields.integer() != 0;
    if (fields.number() == 5) rules.escape_spaces = fields.integer() != 0;
  }
}

}  // namespace

std::unique_ptr<Pipeline> read_sentencepiece(const std::string& path, const TextConfig& config,
                                             std::vector<float>* piece_scores, bool* space_prefix) {
  const std::string bytes = read_whole_file(path);
  auto parts = std::make_unique<Pipeline>();
  Vocabulary& vocabulary = parts->vocabulary;
  vocabulary.file = path;
  std::vector<float> scores;
  Spec spec;
  auto rules = std::make_shared<SentencePieceRules>();
  Fields fields(bytes, path, "the model");
  while (fields.next()) {
    if (fields.number() == 1) read_piece(fields.bytes(), path, vocabulary, scores);
    if (fields.number() == 2) read_trainer(fields.bytes(), path, spec, *rules);
    if (fields.number() == 3) read_rules(fields.bytes(), path, *rules);
  }
  NIBBLE_CHECK(vocabulary.size() > 0, path, ": not a SentencePiece model: it has no pieces");
  NIBBLE_CHECK(spec.model == 1 || spec.model == 2, path, ": model_type is ", spec.model,
               "; expected 1 (unigram) or 2 (bpe)");
  const int32_t pieces = vocabulary.size();
  vocabulary.index();
  for (int32_t id = 0; id < pieces; ++id) {
    if (vocabulary.type(id) == Type::unknown) vocabulary.unknown = id;
    if (vocabulary.type(id) == Type::user_defined) rules->user_defined.add(vocabulary.text(id), id);
  }
  const auto inside = [&](int64_t id) { return id >= 0 && id < pieces ? static_cast<int32_t>(id) : -1; };
  vocabulary.bos = inside(spec.bos);
  vocabulary.eos = inside(spec.eos);
  add_configured_tokens(config, path, *parts);
  scores.resize(static_cast<size_t>(vocabulary.size()), 0.0f);
  if (piece_scores != nullptr) *piece_scores = scores;
  if (space_prefix != nullptr) *space_prefix = rules->add_dummy_prefix;

  if (spec.model == 2) {
    BpeOptions options;
    options.unknown = vocabulary.unknown;
    options.byte_fallback = spec.byte_fallback;
    options.fuse_unknown = options.unknown_required = true;
    parts->kind = "llama";
    parts->model =
        make_scored_bpe(vocabulary, options, scores, rules->user_defined.empty() ? nullptr : &rules->user_defined);
  } else {
    UnigramOptions options;
    options.arithmetic = UnigramOptions::Arithmetic::f32;
    options.unknown = vocabulary.unknown;
    options.byte_fallback = spec.byte_fallback;
    options.user_defined_first = true;
    parts->kind = "t5";
    parts->model = make_unigram(vocabulary, options, {scores.begin(), scores.end()});
  }
  parts->kept = rules;
  const bool drops = rules->add_dummy_prefix || rules->remove_extra_spaces;
  parts->detokenizer.add(Detokenizer::ByteFallback{});
  if (rules->escape_spaces) parts->detokenizer.add(Detokenizer::Replace{std::string(SpaceBoundaries::mark), " "});
  parts->detokenizer.fuse();
  if (drops)
    parts->detokenizer.add(rules->space_as_suffix ? Detokenizer::Strip{" ", 0, 1} : Detokenizer::Strip{" ", 1, 0});
  parts->normalizer.add(rules);
  parts->user_defined_raw = false;
  for (int32_t id = 0; id < pieces; ++id)
    if (vocabulary.type(id) == Type::control || vocabulary.type(id) == Type::unknown)
      parts->added.push_back({id, {}, false});
  return parts;
}

}  // namespace nibble::models
