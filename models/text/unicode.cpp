// SPDX-License-Identifier: Apache-2.0
#include "models/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "models/text/utf8.h"

namespace nibble::models {

namespace {
utf8proc_category_t category(uint32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }
bool between(uint32_t c, uint32_t first, uint32_t last) { return c >= first && c <= last; }
}  // namespace

CodePoint front_code_point(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(text[i])); };
  if (byte(0) < 0x80) return {byte(0), 1, true};
  const Utf8Char front = utf8_front(text);
  if (front.kind != Utf8Char::Kind::valid) return {0xFFFD, front.length, false};
  if (front.length == 2) return {(byte(0) & 0x1F) << 6 | (byte(1) & 0x3F), 2, true};
  if (front.length == 3) return {(byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3, true};
  return {(byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F), 4, true};
}

void append_utf8(uint32_t c, std::string& out) {
  const auto put = [&](uint32_t byte) { out += static_cast<char>(byte); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6), put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F)), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  }
}

size_t valid_prefix(std::string_view text) {
  size_t valid = 0;
  while (valid < text.size()) {
    if (static_cast<uint8_t>(text[valid]) < 0x80) {
      ++valid;
      continue;
    }
    const Utf8Char front = utf8_front(text.substr(valid));
    if (front.kind != Utf8Char::Kind::valid) break;
    valid += front.length;
  }
  return valid;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

bool is_white_space(uint32_t c) {
  if (c < 0x80) return c == ' ' || between(c, 9, 13);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || between(c, 0x2000, 0x200A) || c == 0x2028 || c == 0x2029 ||
         c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_control_or_format(uint32_t c) {
  const utf8proc_category_t kind = category(c);
  return kind == UTF8PROC_CATEGORY_CC || kind == UTF8PROC_CATEGORY_CF || kind == UTF8PROC_CATEGORY_CO ||
         kind == UTF8PROC_CATEGORY_CS;
}

bool is_punctuation(uint32_t c) {
  const utf8proc_category_t kind = category(c);
  return kind >= UTF8PROC_CATEGORY_PC && kind <= UTF8PROC_CATEGORY_PO;
}

bool is_ascii_symbol(uint32_t c) {
  return between(c, '!', '/') || between(c, ':', '@') || between(c, '[', '`') || between(c, '{', '~');
}

bool is_number(uint32_t c) {
  const utf8proc_category_t kind = category(c);
  return kind == UTF8PROC_CATEGORY_ND || kind == UTF8PROC_CATEGORY_NL || kind == UTF8PROC_CATEGORY_NO;
}

bool is_mark(uint32_t c) {
  const utf8proc_category_t kind = category(c);
  return kind == UTF8PROC_CATEGORY_MN || kind == UTF8PROC_CATEGORY_MC || kind == UTF8PROC_CATEGORY_ME;
}

bool is_nonspacing_mark(uint32_t c) { return category(c) == UTF8PROC_CATEGORY_MN; }

bool is_ideograph(uint32_t c) {
  // The seventh block really begins at 2B920 in the reference, not at 2B820.
  return between(c, 0x4E00, 0x9FFF) || between(c, 0x3400, 0x4DBF) || between(c, 0x20000, 0x2A6DF) ||
         between(c, 0x2A700, 0x2B73F) || between(c, 0x2B740, 0x2B81F) || between(c, 0x2B920, 0x2CEAF) ||
         between(c, 0xF900, 0xFAFF) || between(c, 0x2F800, 0x2FA1F);
}

bool is_word(uint32_t c) {
  if (c < 0x80) return between(c, '0', '9') || between(c, 'a', 'z') || between(c, 'A', 'Z') || c == '_';
  const utf8proc_category_t kind = category(c);
  // Other_Alphabetic outside of letters and marks are the circled Latin letters.
  return (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO) || is_mark(c) ||
         kind == UTF8PROC_CATEGORY_ND || kind == UTF8PROC_CATEGORY_NL || kind == UTF8PROC_CATEGORY_PC ||
         between(c, 0x24B6, 0x24E9) || between(c, 0x1F130, 0x1F149) || between(c, 0x1F150, 0x1F169) ||
         between(c, 0x1F170, 0x1F189) || c == 0x200C || c == 0x200D;
}

std::string lower_case(std::string_view text) {
  std::string out;
  out.reserve(text.size() + 8);
  while (!text.empty()) {
    const CodePoint c = front_code_point(text);
    if (!c.valid)
      out += text.substr(0, c.length);
    else if (c.value < 0x80)
      out += static_cast<char>(c.value >= 'A' && c.value <= 'Z' ? c.value + 32 : c.value);
    else if (c.value == 0x130)  // the one letter whose lower case is two characters
      out += "i\xCC\x87";
    else
      append_utf8(static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c.value))), out);
    text.remove_prefix(c.length);
  }
  return out;
}

namespace {

using Codes = std::vector<utf8proc_int32_t>;

void decompose(std::string_view text, bool compatible, Codes& out) {
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE |
                                                      (compatible ? UTF8PROC_COMPAT : 0));
  while (!text.empty()) {
    const CodePoint c = front_code_point(text);
    text.remove_prefix(c.length);
    utf8proc_int32_t parts[32];  // the longest decomposition has 18
    int boundary = 0;
    const auto count =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c.value), parts, 32, options, &boundary);
    if (count < 0 || count > 32)
      out.push_back(static_cast<utf8proc_int32_t>(c.value));
    else
      out.insert(out.end(), parts, parts + count);
  }
  const auto rank = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (auto at = out.begin(); at != out.end();) {
    if (*at < 0x300 || rank(*at) == 0) {
      ++at;
      continue;
    }
    auto end = at;
    while (end != out.end() && rank(*end) != 0) ++end;
    if (end - at > 1) std::stable_sort(at, end, [&](auto a, auto b) { return rank(a) < rank(b); });
    at = end;
  }
}

/// `text` is valid and begins where nothing composes with what stands before it.
void append_normal(std::string_view text, NormalForm form, Codes& codes, std::string& out) {
  codes.clear();
  decompose(text, form == NormalForm::nfkc || form == NormalForm::nfkd, codes);
  if (form == NormalForm::nfc || form == NormalForm::nfkc) {
    const auto length = utf8proc_normalize_utf32(codes.data(), static_cast<utf8proc_ssize_t>(codes.size()),
                                                 static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
    codes.resize(static_cast<size_t>(std::max<utf8proc_ssize_t>(length, 0)));
  }
  for (const auto code : codes) append_utf8(static_cast<uint32_t>(code), out);
}

}  // namespace

std::string normal_form(std::string_view text, NormalForm form) {
  std::string out;
  out.reserve(text.size() + 8);
  Codes codes;
  const auto ascii = [&](size_t i) { return static_cast<uint8_t>(text[i]) < 0x80; };
  size_t at = 0;
  while (at < text.size()) {
    size_t other = at;
    while (other < text.size() && ascii(other)) ++other;
    if (other == text.size()) break;
    // ASCII is in every normal form and composes with nothing before it; the last of a run may with what follows.
    const size_t begin = other > at ? other - 1 : at;
    out += text.substr(at, begin - at);
    at = other;
    while (at < text.size() && !ascii(at)) {
      const CodePoint c = front_code_point(text.substr(at));
      if (!c.valid) break;
      at += c.length;
    }
    append_normal(text.substr(begin, at - begin), form, codes, out);
    if (at < text.size() && !ascii(at)) {
      const size_t bad = front_code_point(text.substr(at)).length;
      out += text.substr(at, bad);
      at += bad;
    }
  }
  return out += text.substr(at);
}

size_t front_grapheme(std::string_view text) {
  CodePoint last = front_code_point(text);
  size_t length = last.length;
  utf8proc_int32_t state = 0;
  while (length < text.size()) {
    const CodePoint next = front_code_point(text.substr(length));
    if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(last.value),
                                         static_cast<utf8proc_int32_t>(next.value), &state))
      break;
    length += next.length;
    last = next;
  }
  return length;
}

}  // namespace nibble::models
