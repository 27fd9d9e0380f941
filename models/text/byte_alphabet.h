// SPDX-License-Identifier: Apache-2.0
// How byte-level tokenizers spell bytes as printable characters.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace nibble::models {

/// Printable Latin-1 bytes stand for themselves; the others, in order, for U+0100 and up.
struct ByteAlphabet {
  std::array<std::string, 256> spelling;
  std::array<int, 0x144> byte_of{};  ///< of a code point; -1: none

  static const ByteAlphabet& get();
  /// Appends the bytes that `text` spells; false, and nothing is appended, when a character stands for no byte.
  bool read(std::string_view text, std::string& out) const;

 private:
  ByteAlphabet();
};

}  // namespace nibble::models
