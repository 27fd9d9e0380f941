// SPDX-License-Identifier: Apache-2.0
// Code points: their classes, as the reference tokenizers define them, and the normal forms of Unicode.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace nibble::models {

struct CodePoint {
  uint32_t value;  ///< U+FFFD where the bytes are not UTF-8
  size_t length;
  bool valid;
};
/// The first of `text`, which is not empty.
CodePoint front_code_point(std::string_view text);
void append_utf8(uint32_t code_point, std::string& out);
/// Byte length of the valid UTF-8 that `text` begins with.
size_t valid_prefix(std::string_view text);
bool is_ascii(std::string_view text);

bool is_white_space(uint32_t c);       ///< Unicode's White_Space
bool is_control_or_format(uint32_t c); ///< categories Cc, Cf, Cs and Co
bool is_punctuation(uint32_t c);       ///< category P
bool is_ascii_symbol(uint32_t c);      ///< ASCII that is neither letter, digit, space nor control
bool is_number(uint32_t c);            ///< category N
bool is_mark(uint32_t c);              ///< category M
bool is_nonspacing_mark(uint32_t c);   ///< category Mn
bool is_ideograph(uint32_t c);         ///< the blocks that BERT takes apart
bool is_word(uint32_t c);              ///< \w: letters, marks, decimal digits, connectors

/// The lower case of each character for itself.
std::string lower_case(std::string_view text);

enum class NormalForm { nfc, nfd, nfkc, nfkd };
/// Bytes that are not UTF-8 stay as they are. O(n log n) at worst, whatever the marks.
std::string normal_form(std::string_view text, NormalForm form);

/// Length of the grapheme cluster at the front of `text`, which is not empty.
size_t front_grapheme(std::string_view text);

}  // namespace nibble::models
