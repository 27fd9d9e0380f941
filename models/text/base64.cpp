// SPDX-License-Identifier: Apache-2.0
#include "models/text/base64.h"

#include <cstdint>

#include "tensor/check.h"

namespace nibble::models {

std::string base64_decoded(std::string_view text) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  while (text.ends_with('=')) text.remove_suffix(1);
  NIBBLE_CHECK(text.size() % 4 != 1, "base64 text of ", text.size(), " characters");
  std::string out;
  out.reserve(text.size() * 3 / 4 + 3);
  uint32_t bits = 0;
  int held = 0;
  for (char c : text) {
    const size_t digit = digits.find(c);
    NIBBLE_CHECK(digit != std::string_view::npos, "base64 text with a byte of value ",
                 static_cast<int>(static_cast<uint8_t>(c)));
    bits = (bits & 0xFF) << 6 | static_cast<uint32_t>(digit);
    held += 6;
    if (held >= 8) {
      held -= 8;
      out += static_cast<char>(bits >> held & 0xFF);
    }
  }
  return out;
}

}  // namespace nibble::models
