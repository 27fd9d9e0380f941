// SPDX-License-Identifier: Apache-2.0
#include "models/text/detokenizer.h"

#include "models/text/byte_alphabet.h"
#include "models/text/vocabulary.h"

namespace nibble::models {

namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty() || text.find(from) == std::string::npos) return;
  std::string out;
  size_t at = 0;
  for (size_t found; (found = text.find(from, at)) != std::string::npos; at = found + from.size())
    out.append(text, at, found - at).append(to);
  text = out.append(text, at);
}

struct Context {
  std::string& text;
  bool first, last;

  void operator()(const Detokenizer::ByteLevel&) const {
    std::string bytes;
    if (ByteAlphabet::get().read(text, bytes)) text = std::move(bytes);
  }
  void operator()(const Detokenizer::ByteFallback&) const {
    if (const int byte = spelled_byte(text); byte >= 0) text.assign(1, static_cast<char>(byte));
  }
  void operator()(const Detokenizer::Replace& step) const { replace_all(text, step.from, step.to); }
  void operator()(const Detokenizer::Metaspace& step) const {
    replace_all(text, step.replacement, first && step.drops_first ? "" : " ");
  }
  void operator()(const Detokenizer::WordPiece& step) const {
    if (!first) {
      if (text.starts_with(step.prefix))
        text.erase(0, step.prefix.size());
      else
        text.insert(text.begin(), ' ');
    }
    if (!step.cleanup) return;
    constexpr std::pair<const char*, const char*> rules[] = {
        {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
        {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (const auto& [from, to] : rules) replace_all(text, from, to);
  }
  void operator()(const Detokenizer::WordEnd& step) const { replace_all(text, step.suffix, last ? "" : " "); }
  void operator()(const Detokenizer::Strip& step) const {
    std::string_view left = text;
    for (size_t i = 0; i < step.start && left.starts_with(step.content); ++i) left.remove_prefix(step.content.size());
    for (size_t i = 0; i < step.stop && left.ends_with(step.content); ++i) left.remove_suffix(step.content.size());
    text = std::string(left);
  }
  void operator()(const Detokenizer::SpaceBefore&) const {
    if (!first) text.insert(text.begin(), ' ');
  }
};

}  // namespace

void Detokenizer::add(Step step) { (fused_ ? whole_ : steps_).push_back(std::move(step)); }

std::string Detokenizer::piece(std::string_view token, bool first, bool last) const {
  std::string text(token);
  for (const Step& step : steps_) std::visit(Context{text, first, last}, step);
  return text;
}

size_t Detokenizer::dropped(std::string_view first_piece) const {
  size_t bytes = 0;
  for (const Step& step : whole_)
    if (const auto* strip = std::get_if<Strip>(&step))
      for (size_t i = 0; i < strip->start && first_piece.substr(bytes).starts_with(strip->content); ++i)
        bytes += strip->content.size();
  return bytes;
}

void Detokenizer::finish(std::string& text) const {
  for (const Step& step : whole_) {
    if (const auto* strip = std::get_if<Strip>(&step))
      Context{text, true, true}(Strip{strip->content, 0, strip->stop});
    else
      std::visit(Context{text, true, true}, step);
  }
}

}  // namespace nibble::models
