// SPDX-License-Identifier: Apache-2.0
// Strict UTF-8, one character at a time (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF).
#pragma once

#include <cstddef>
#include <string_view>

namespace nibble::models {

struct Utf8Char {
  enum class Kind { valid, invalid, incomplete };
  Kind kind;
  size_t length;  ///< of the character; of an invalid or incomplete one, of the longest part that could have begun one
};

/// The character at the front of `text`, which is not empty. incomplete: all of `text` is the beginning of a character.
Utf8Char utf8_front(std::string_view text);

}  // namespace nibble::models
