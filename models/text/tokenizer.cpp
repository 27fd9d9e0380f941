// SPDX-License-Identifier: Apache-2.0
#include "models/text/tokenizer.h"

#include <algorithm>
#include <deque>
#include <functional>

#include "models/text/pipeline.h"
#include "tensor/check.h"

namespace nibble::models {

bool Tokenizer::is_end(int32_t token) const {
  return std::binary_search(end_tokens_.begin(), end_tokens_.end(), token);
}

namespace {

/// Remembers how short words of one text were encoded. Keeps views of the words.
class WordCache {
 public:
  explicit WordCache(size_t text_bytes) : slots_(text_bytes < 2048 ? 0 : text_bytes < 65536 ? 4096 : 16384) {}

  /// Appends the tokens of a word that was seen before.
  bool replay(std::string_view word, std::vector<int32_t>& out) {
    if (slots_.empty() || word.size() > longest) return false;
    current_ = &slots_[std::hash<std::string_view>{}(word) & (slots_.size() - 1)];
    if (current_->word != word) return false;
    const size_t at = out.size();
    out.resize(at + current_->count);
    std::copy_n(out.begin() + current_->first, current_->count, out.begin() + static_cast<ptrdiff_t>(at));
    return true;
  }
  /// The tokens of `word`, for which replay() has just failed, are those of `out` from `first` on.
  void remember(std::string_view word, const std::vector<int32_t>& out, size_t first) {
    if (slots_.empty() || word.size() > longest) return;
    *current_ = {word, static_cast<uint32_t>(first), static_cast<uint32_t>(out.size() - first)};
  }

 private:
  static constexpr size_t longest = 64;
  struct Slot {
    std::string_view word;
    uint32_t first = 0, count = 0;
  };
  std::vector<Slot> slots_;
  Slot* current_ = nullptr;
};

class PipelineTokenizer final : public Tokenizer {
 public:
  explicit PipelineTokenizer(std::unique_ptr<const Pipeline> pipeline);

  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options) const override;
  std::string piece(int32_t token, bool special) const override;
  std::string decode(std::span<const int32_t> tokens, bool special) const override;
  int vocab() const override { return vocabulary().size(); }
  std::string_view kind() const override { return parts_->kind; }
  std::string_view token_text(int32_t token) const override {
    check_id(token);
    return vocabulary().text(token);
  }
  bool is_control(int32_t token) const override {
    check_id(token);
    return control(token);
  }
  int32_t find(std::string_view text) const override {
    const int32_t id = vocabulary().find(text);
    return id >= 0 && findable_[static_cast<size_t>(id)] ? id : -1;
  }

 private:
  struct Run;
  const Vocabulary& vocabulary() const { return parts_->vocabulary; }
  bool control(int32_t token) const {
    const Vocabulary::Type type = vocabulary().type(token);
    return type == Vocabulary::Type::control || type == Vocabulary::Type::unknown;
  }
  void check_id(int32_t token) const {
    NIBBLE_CHECK(token >= 0 && token < vocabulary().size(), "token ", token, " is outside the vocabulary of ",
                 vocabulary().size(), " tokens");
  }
  std::string plain_piece(int32_t token, bool first, bool last) const {
    const std::string& text = vocabulary().text(token);
    if (parts_->user_defined_raw && vocabulary().type(token) == Vocabulary::Type::user_defined) return text;
    return parts_->detokenizer.piece(text, first, last);
  }

  std::unique_ptr<const Pipeline> parts_;
  // Control tokens that are looked for in the normalised text are looked for in the raw one when parts of it are plain,
  // because those parts are known in the raw text only.
  SpecialTokens raw_, raw_with_control_, normalized_, normalized_without_control_;
  std::vector<bool> findable_;
};

PipelineTokenizer::PipelineTokenizer(std::unique_ptr<const Pipeline> pipeline) : parts_(std::move(pipeline)) {
  bos_ = vocabulary().bos;
  eos_ = vocabulary().eos;
  const auto& prefix = parts_->prefix;
  const auto& suffix = parts_->suffix;
  add_bos_ = bos_ >= 0 && std::find(prefix.begin(), prefix.end(), bos_) != prefix.end();
  add_eos_ = eos_ >= 0 && std::find(suffix.begin(), suffix.end(), eos_) != suffix.end();
  end_tokens_ = vocabulary().ends;
  findable_.assign(static_cast<size_t>(vocabulary().size()), false);
  for (const Pipeline::Added& added : parts_->added) {
    const std::string& text = vocabulary().text(added.id);
    findable_[static_cast<size_t>(added.id)] =
        vocabulary().type(added.id) != Vocabulary::Type::unknown;
    if (!added.normalized) {
      raw_.add(text, added.id, added.flags);
      raw_with_control_.add(text, added.id, added.flags);
      continue;
    }
    std::string pattern = text;
    parts_->normalizer.apply(pattern);
    normalized_.add(pattern, added.id, added.flags);
    if (added.flags.always)
      normalized_without_control_.add(pattern, added.id, added.flags);
    else
      raw_with_control_.add(text, added.id, added.flags);
  }
}

/// One text on its way through the pipeline.
struct PipelineTokenizer::Run {
  const PipelineTokenizer& self;
  const EncodeOptions& options;
  WordCache cache;
  std::vector<int32_t> out;
  std::deque<std::string> texts;
  Words words;
  SubwordScratch scratch;

  Run(const PipelineTokenizer& tokenizer, size_t bytes, const EncodeOptions& how)
      : self(tokenizer), options(how), cache(bytes) {
    out.reserve(bytes / 3 + 8);
  }

  void raw(std::string_view text) {
    const bool plain = !options.plain.empty();
    const SpecialTokens& set = plain ? self.raw_with_control_ : self.raw_;
    for (size_t at = 0; at < text.size();) {
      const SpecialTokens::Match match = set.next(text, at, !options.parse_special, options.plain);
      if (match.at > at) section(text.substr(at, match.at - at), at == 0);
      if (match.id >= 0) out.push_back(match.id);
      at = match.at + match.length;
    }
  }

  void section(std::string_view text, bool first) {
    if (!self.parts_->normalizer.empty()) {
      std::string& normal = texts.emplace_back(text);
      self.parts_->normalizer.apply(normal);
      text = normal;
    }
    const bool plain = !options.plain.empty();
    const SpecialTokens& set = plain ? self.normalized_without_control_ : self.normalized_;
    for (size_t at = 0; at < text.size();) {
      const SpecialTokens::Match match = set.next(text, at, !options.parse_special);
      if (match.at > at) cut(text.substr(at, match.at - at), first && at == 0);
      if (match.id >= 0) out.push_back(match.id);
      at = match.at + match.length;
    }
  }

  void cut(std::string_view text, bool first) {
    if (self.parts_->pre.empty()) {
      word(text);
      return;
    }
    words.list.clear();
    self.parts_->pre.split(text, first, words);
    for (const std::string_view one : words.list) word(one);
  }

  void word(std::string_view text) {
    const SubwordModel& model = *self.parts_->model;
    while (!text.empty()) {
      const std::string_view one = text.substr(0, model.separable(text));
      text.remove_prefix(one.size());
      if (cache.replay(one, out)) continue;
      const size_t first = out.size();
      model.encode(one, scratch, out);
      cache.remember(one, out, first);
    }
  }
};

std::vector<int32_t> PipelineTokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  NIBBLE_CHECK(text.size() < 1u << 30, "text of ", text.size(), " bytes; at most 1073741823 can be encoded at once");
  Run run(*this, text.size(), options);
  if (options.add_bos) run.out = parts_->prefix;
  run.raw(text);
  if (options.add_bos) run.out.insert(run.out.end(), parts_->suffix.begin(), parts_->suffix.end());
  return std::move(run.out);
}

std::string PipelineTokenizer::piece(int32_t token, bool special) const {
  check_id(token);
  if (control(token)) return special ? vocabulary().text(token) : "";
  return plain_piece(token, false, false);
}

std::string PipelineTokenizer::decode(std::span<const int32_t> tokens, bool special) const {
  size_t visible = tokens.size();
  while (visible > 0 && is_control(tokens[visible - 1])) --visible;
  std::string out;
  bool first = true;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (is_control(tokens[i])) {
      if (special) out += vocabulary().text(tokens[i]);
      continue;
    }
    std::string text = plain_piece(tokens[i], first, i + 1 == visible);
    if (first) text.erase(0, parts_->detokenizer.dropped(text));
    first = false;
    out += text;
  }
  parts_->detokenizer.finish(out);
  return out;
}

}  // namespace

void add_typed_tokens(Pipeline& pipeline) {
  using Type = Vocabulary::Type;
  for (int32_t id = 0; id < pipeline.vocabulary.size(); ++id) {
    const Type type = pipeline.vocabulary.type(id);
    if (type == Type::control || type == Type::user_defined || type == Type::unknown)
      pipeline.added.push_back({id, {.always = type == Type::user_defined}, false});
  }
}

std::shared_ptr<const Tokenizer> make_tokenizer(std::unique_ptr<Pipeline> pipeline) {
  return std::make_shared<PipelineTokenizer>(std::move(pipeline));
}

}  // namespace nibble::models
