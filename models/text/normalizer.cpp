// SPDX-License-Identifier: Apache-2.0
#include "models/text/normalizer.h"

#include <algorithm>

#include "models/text/byte_alphabet.h"

namespace nibble::models {

namespace {

constexpr std::string_view space_mark = "\xE2\x96\x81";

/// Calls `each(code point, its bytes)` for the characters of a text; bytes that are not UTF-8 are copied.
template <class Each>
std::string map_characters(std::string_view text, const Each& each) {
  std::string out;
  out.reserve(text.size() + 8);
  while (!text.empty()) {
    const CodePoint c = front_code_point(text);
    if (c.valid)
      each(c.value, text.substr(0, c.length), out);
    else
      out += text.substr(0, c.length);
    text.remove_prefix(c.length);
  }
  return out;
}

std::string without_marks(std::string_view text, bool (*is)(uint32_t)) {
  return map_characters(text, [&](uint32_t c, std::string_view bytes, std::string& out) {
    if (c < 0x300 || !is(c)) out += bytes;
  });
}

std::string machine_translation(std::string_view text) {
  return map_characters(text, [](uint32_t c, std::string_view bytes, std::string& out) {
    if ((c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F) return;
    const bool space = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 || (c >= 0x200B && c <= 0x200F) ||
                       c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
    out.append(space ? std::string_view(" ") : bytes);
  });
}

void apply_step(const BertRules& rules, std::string& text) {
  if (rules.clean_text)
    text = map_characters(text, [](uint32_t c, std::string_view bytes, std::string& out) {
      const bool line = c == '\t' || c == '\n' || c == '\r';
      if (c == 0 || c == 0xFFFD || (!line && is_control_or_format(c))) return;
      out.append(line || is_white_space(c) ? std::string_view(" ") : bytes);
    });
  if (rules.handle_ideographs && !is_ascii(text))
    text = map_characters(text, [](uint32_t c, std::string_view bytes, std::string& out) {
      if (is_ideograph(c))
        out.append(1, ' ').append(bytes).append(1, ' ');
      else
        out += bytes;
    });
  if (rules.strip_accents && !is_ascii(text))
    text = without_marks(normal_form(text, NormalForm::nfd), is_nonspacing_mark);
  if (rules.lowercase) text = lower_case(text);
}

void apply_step(NormalForm form, std::string& text) {
  if (!is_ascii(text)) text = normal_form(text, form);
}

void apply_step(SimpleRule rule, std::string& text) {
  switch (rule) {
    case SimpleRule::lowercase:
      text = lower_case(text);
      return;
    case SimpleRule::strip_accents:
      text = without_marks(text, is_mark);
      return;
    case SimpleRule::nmt:
      text = machine_translation(text);
      return;
    case SimpleRule::byte_level: {
      std::string out;
      for (char byte : text) out += ByteAlphabet::get().spelling[static_cast<uint8_t>(byte)];
      text = std::move(out);
      return;
    }
  }
}

void apply_step(const StripRule& rule, std::string& text) {
  size_t begin = 0, end = text.size();
  while (rule.left && begin < end) {
    const CodePoint c = front_code_point(std::string_view(text).substr(begin));
    if (!c.valid || !is_white_space(c.value)) break;
    begin += c.length;
  }
  while (rule.right && begin < end) {
    size_t last = end - 1;
    while (last > begin && (static_cast<uint8_t>(text[last]) & 0xC0) == 0x80) --last;
    const CodePoint c = front_code_point(std::string_view(text).substr(last, end - last));
    if (!c.valid || last + c.length != end || !is_white_space(c.value)) break;
    end = last;
  }
  text.resize(end);
  text.erase(0, begin);
}

void apply_step(const Normalizer::Prepend& step, std::string& text) {
  if (!text.empty()) text.insert(text.begin(), step.text.begin(), step.text.end());
}

void apply_step(const ReplaceRule& rule, std::string& text) {
  std::string out;
  const std::string_view all = text;
  if (!rule.literal.empty()) {
    size_t at = 0, found;
    while ((found = all.find(rule.literal, at)) != std::string_view::npos) {
      out.append(all, at, found - at) += rule.content;
      at = found + rule.literal.size();
    }
    if (at == 0) return;
    text = out.append(all, at);
    return;
  }
  RegexScan scan;
  for (std::string_view rest = all; !rest.empty();) {
    const std::string_view valid = rest.substr(0, valid_prefix(rest));
    RegexScan::Match match{};
    size_t done = 0, from = 0;
    while (from <= valid.size() && scan.find(rule.pattern, valid, from, match)) {
      if (match.begin == match.end) {
        // The reference replaces nothing at empty matches that follow a match.
        from = match.end + (match.end < valid.size() ? front_code_point(valid.substr(match.end)).length : 1);
        continue;
      }
      out.append(valid, done, match.begin - done) += rule.content;
      done = from = match.end;
    }
    out.append(valid, done);
    rest.remove_prefix(valid.size());
    if (rest.empty()) break;
    const size_t bad = front_code_point(rest).length;
    out.append(rest, 0, bad);
    rest.remove_prefix(bad);
  }
  text = std::move(out);
}

void apply_step(const Normalizer::Graphemes& step, std::string& text) {
  std::string out;
  const auto replace = [&](std::string_view chunk) {
    const Charsmap::Match match = step.charsmap.shortest(chunk);
    if (match.length > 0) out += match.replacement;
    return match.length > 0;
  };
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view cluster = rest.substr(0, front_grapheme(rest));
    rest.remove_prefix(cluster.size());
    if (cluster.size() < 6 && replace(cluster)) continue;
    for (std::string_view left = cluster; !left.empty();) {
      const std::string_view one = left.substr(0, front_code_point(left).length);
      if (!replace(one)) out += one;
      left.remove_prefix(one.size());
    }
  }
  text = std::move(out);
}

/// One step of SentencePiece's normaliser: what the front of `text` becomes, and how much of it that takes.
struct Front {
  std::string_view becomes;
  size_t length;
};

Front front(const SentencePieceRules& rules, std::string_view text) {
  if (!rules.user_defined.empty())
    if (const Trie::Match own = rules.user_defined.longest(text); own.length > 0)
      return {text.substr(0, own.length), own.length};
  if (const Charsmap::Match rule = rules.charsmap.longest(text); rule.length > 0)
    return {rule.replacement, rule.length};
  const CodePoint c = front_code_point(text);
  if (c.valid) return {text.substr(0, c.length), c.length};
  if (rules.replace_invalid) return {"\xEF\xBF\xBD", 1};
  return {text.substr(0, c.length), c.length};
}

void apply_step(const std::shared_ptr<const SentencePieceRules>& step, std::string& text) {
  const SentencePieceRules& rules = *step;
  const std::string_view space = rules.escape_spaces ? space_mark : std::string_view(" ");
  std::string_view in = text;
  while (rules.remove_extra_spaces && !in.empty()) {
    const Front next = front(rules, in);
    if (next.becomes != " ") break;
    in.remove_prefix(next.length);
  }
  std::string out;
  if (!in.empty()) {
    out.reserve(in.size() * 5 / 4 + 16);
    if (!rules.space_as_suffix && rules.add_dummy_prefix) out += space;
    bool after_space = rules.remove_extra_spaces;
    while (!in.empty()) {
      auto [becomes, length] = front(rules, in);
      in.remove_prefix(length);
      while (after_space && becomes.starts_with(' ')) becomes.remove_prefix(1);
      if (becomes.empty()) continue;
      for (char byte : becomes) {
        if (byte == ' ')
          out += space;
        else
          out += byte;
      }
      after_space = rules.remove_extra_spaces && becomes.ends_with(' ');
    }
    std::string_view kept = out;
    while (rules.remove_extra_spaces && kept.ends_with(space)) kept.remove_suffix(space.size());
    out.erase(kept.size());
    if (rules.space_as_suffix && rules.add_dummy_prefix) out += space;
  }
  text = std::move(out);
}

}  // namespace

void Normalizer::add(Step step) { steps_.push_back(std::move(step)); }

void Normalizer::apply(std::string& text) const {
  for (const Step& step : steps_) std::visit([&](const auto& one) { apply_step(one, text); }, step);
}

}  // namespace nibble::models
