// SPDX-License-Identifier: Apache-2.0
#include "models/text/jinja/text.h"

#include <utf8proc.h>

#include <algorithm>

#include "models/text/utf8.h"

namespace nibble::models::jinja {

void append(Text& out, const Text& more) {
  const size_t offset = out.bytes.size();
  for (const TextRange& range : more.plain) {
    if (!out.plain.empty() && out.plain.back().end == offset + range.begin)
      out.plain.back().end = offset + range.end;
    else
      out.plain.push_back({offset + range.begin, offset + range.end});
  }
  out.bytes += more.bytes;
}

void append(Text& out, std::string_view more) { out.bytes += more; }

Text part(const Text& text, size_t begin, size_t end) {
  Text out{text.bytes.substr(begin, end - begin), {}, text.markup};
  for (const TextRange& range : text.plain) {
    const size_t from = std::max(range.begin, begin), to = std::min(range.end, end);
    if (from < to) out.plain.push_back({from - begin, to - begin});
  }
  return out;
}

Text whole_plain(std::string bytes) {
  Text out{std::move(bytes)};
  if (!out.bytes.empty()) out.plain.push_back({0, out.bytes.size()});
  return out;
}

Text derived(std::string bytes, const Text& source) {
  Text out = source.plain.empty() ? Text{std::move(bytes)} : whole_plain(std::move(bytes));
  out.markup = source.markup;
  return out;
}

size_t char_length(std::string_view text, size_t at) {
  if (static_cast<uint8_t>(text[at]) < 0x80) return 1;
  const Utf8Char front = utf8_front(text.substr(at));
  return front.kind == Utf8Char::Kind::valid ? front.length : 1;
}

size_t char_count(std::string_view text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size(); at += char_length(text, at)) ++count;
  return count;
}

size_t char_offset(std::string_view text, size_t index) {
  size_t at = 0;
  while (index > 0 && at < text.size()) at += char_length(text, at), --index;
  return at;
}

int32_t code_point(std::string_view text, size_t at) {
  const size_t length = char_length(text, at);
  const auto byte = [&](size_t i) { return static_cast<int32_t>(static_cast<uint8_t>(text[at + i])); };
  if (length == 1) return byte(0);
  int32_t code = byte(0) & (0x7f >> length);
  for (size_t i = 1; i < length; ++i) code = (code << 6) | (byte(i) & 0x3f);
  return code;
}

void append_code_point(std::string& out, int32_t code) {
  const auto put = [&](int32_t byte) { out += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xc0 | code >> 6);
    put(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    put(0xe0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3f));
    put(0x80 | (code & 0x3f));
  } else {
    put(0xf0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3f));
    put(0x80 | (code >> 6 & 0x3f));
    put(0x80 | (code & 0x3f));
  }
}

bool is_space(int32_t code) {
  if (code < 0x80) return (code >= 9 && code <= 13) || (code >= 0x1c && code <= 0x20);
  return code == 0x85 || code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
         code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

namespace {

/// Calls `map(code)` for valid characters; invalid bytes are kept.
template <typename Map>
std::string mapped(std::string_view text, const Map& map) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const size_t length = char_length(text, at);
    if (length == 1 && static_cast<uint8_t>(text[at]) >= 0x80)
      out += text[at];
    else
      map(out, code_point(text, at));
    at += length;
  }
  return out;
}

void put_upper(std::string& out, int32_t code) {
  if (code == 0xdf)
    out += "SS";  // the one character whose upper case is two and which people write
  else
    append_code_point(out, utf8proc_toupper(code));
}

bool printable(int32_t code) {
  if (code < 0x80) return code >= 0x20 && code < 0x7f;
  switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

void put_hex(std::string& out, int32_t code) {
  const int digits = code < 0x100 ? 2 : code < 0x10000 ? 4 : 8;
  out += digits == 2 ? "\\x" : digits == 4 ? "\\u" : "\\U";
  for (int shift = 4 * digits - 4; shift >= 0; shift -= 4) out += "0123456789abcdef"[code >> shift & 15];
}

}  // namespace

std::string to_upper(std::string_view text) { return mapped(text, put_upper); }

std::string to_lower(std::string_view text) {
  return mapped(text, [](std::string& out, int32_t code) { append_code_point(out, utf8proc_tolower(code)); });
}

std::string capitalized(std::string_view text) {
  if (text.empty()) return "";
  const size_t first = char_length(text, 0);
  std::string out = mapped(text.substr(0, first), [](std::string& to, int32_t code) {
    append_code_point(to, utf8proc_totitle(code));
  });
  return out + to_lower(text.substr(first));
}

bool is_class(int32_t code, CharClass wanted) {
  const utf8proc_category_t category = utf8proc_category(code);
  switch (wanted) {
    case CharClass::alpha:
      return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
    case CharClass::digit:
      return category == UTF8PROC_CATEGORY_ND;
    case CharClass::alnum:
      return is_class(code, CharClass::alpha) ||
             (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO);
    case CharClass::space:
      return is_space(code);
    case CharClass::upper:
      return category == UTF8PROC_CATEGORY_LU;
    case CharClass::lower:
      return category == UTF8PROC_CATEGORY_LL;
  }
  return false;
}

std::string in_quotes(std::string_view text) {
  const bool doubles = text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos;
  const char quote = doubles ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size(); at += char_length(text, at)) {
    const int32_t code = code_point(text, at);
    if (code == quote || code == '\\')
      (out += '\\') += static_cast<char>(code);
    else if (code == '\n')
      out += "\\n";
    else if (code == '\r')
      out += "\\r";
    else if (code == '\t')
      out += "\\t";
    else if (printable(code) && (code < 0x80 || char_length(text, at) > 1))
      out += text.substr(at, char_length(text, at));
    else
      put_hex(out, code);
  }
  return out + quote;
}

Text stripped(const Text& text, Side side, const std::string* chars) {
  const std::string_view bytes = text.bytes;
  const auto drops = [&](size_t at) {
    if (chars == nullptr) return is_space(code_point(bytes, at));
    const std::string_view one = bytes.substr(at, char_length(bytes, at));
    for (size_t i = 0; i < chars->size(); i += char_length(*chars, i))
      if (std::string_view(*chars).substr(i, char_length(*chars, i)) == one) return true;
    return false;
  };
  size_t begin = 0, end = bytes.size();
  if (side != Side::right)
    while (begin < end && drops(begin)) begin += char_length(bytes, begin);
  while (side != Side::left && end > begin) {
    size_t last = end - 1;
    while (last > begin && end - last < 4 && (static_cast<uint8_t>(bytes[last]) & 0xc0) == 0x80) --last;
    if (last + char_length(bytes, last) != end) last = end - 1;
    if (!drops(last)) break;
    end = last;
  }
  return part(text, begin, end);
}

Text replaced(const Text& text, const Text& from, const Text& to, int64_t count) {
  Text out;
  out.markup = text.markup;
  size_t done = 0;
  const std::string_view bytes = text.bytes;
  if (from.bytes.empty()) {
    for (size_t at = 0; count != 0; --count) {
      append(out, to);
      if (at >= bytes.size()) return out;
      const size_t next = at + char_length(bytes, at);
      append(out, part(text, at, next));
      done = at = next;
    }
  } else {
    for (size_t at; count != 0 && (at = bytes.find(from.bytes, done)) != std::string_view::npos; --count) {
      append(out, part(text, done, at));
      append(out, to);
      done = at + from.bytes.size();
    }
  }
  append(out, part(text, done, bytes.size()));
  return out;
}

std::string html_escaped(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '\'')
      out += "&#39;";
    else if (c == '"')
      out += "&#34;";
    else
      out += c;
  }
  return out;
}

Text html_escaped(const Text& text) {
  Text out;
  if (text.markup) {
    out = text;
  } else if (text.plain.empty()) {
    out.bytes = html_escaped(text.bytes);
  } else {
    out = whole_plain(html_escaped(text.bytes));
  }
  out.markup = true;
  return out;
}

}  // namespace nibble::models::jinja
