// SPDX-License-Identifier: Apache-2.0
// Strings of templates: UTF-8 that remembers which parts came from outside, and Python's rules for characters.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "models/text/tokenizer.h"

namespace nibble::models::jinja {

/// Bytes of `plain` ranges (rising, apart, not empty) were written by people or models, not by the template: control
/// tokens spelled there are only text. Whatever cannot tell its parts apart marks its whole result.
struct Text {
  std::string bytes;
  std::vector<TextRange> plain = {};
  bool markup = false;  ///< came through `safe` or `escape`: `+` escapes what it is joined with
};

void append(Text& out, const Text& more);
void append(Text& out, std::string_view more);
/// Bytes [begin, end).
Text part(const Text& text, size_t begin, size_t end);
/// `bytes` made from `source`: plain as a whole if any of the source is.
Text derived(std::string bytes, const Text& source);
Text whole_plain(std::string bytes);

/// Length in bytes of the character at `at`; invalid bytes count as one character each.
size_t char_length(std::string_view text, size_t at);
size_t char_count(std::string_view text);
/// Byte offset of character `index` (at most the size).
size_t char_offset(std::string_view text, size_t index);
/// The code point at `at`; invalid bytes give themselves.
int32_t code_point(std::string_view text, size_t at);
void append_code_point(std::string& out, int32_t code);

bool is_space(int32_t code);  ///< of str.strip and str.split
std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
/// The first character in title case, the others in lower case.
std::string capitalized(std::string_view text);
enum class CharClass { alpha, digit, alnum, space, upper, lower };
bool is_class(int32_t code, CharClass wanted);
/// As repr() quotes it.
std::string in_quotes(std::string_view text);

enum class Side { left, right, both };
/// Without characters of `chars` at the ends; nullptr: white space.
Text stripped(const Text& text, Side side, const std::string* chars = nullptr);
/// Every `from` by `to`, at most `count` times (-1: all); an empty `from` stands between all characters.
Text replaced(const Text& text, const Text& from, const Text& to, int64_t count);
std::string html_escaped(std::string_view text);
Text html_escaped(const Text& text);

}  // namespace nibble::models::jinja
