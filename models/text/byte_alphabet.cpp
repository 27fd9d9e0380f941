// SPDX-License-Identifier: Apache-2.0
#include "models/text/byte_alphabet.h"

#include "models/text/unicode.h"

namespace nibble::models {

ByteAlphabet::ByteAlphabet() {
  byte_of.fill(-1);
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
    const uint32_t code = printable ? byte : next++;
    byte_of[code] = static_cast<int>(byte);
    append_utf8(code, spelling[byte]);
  }
}

const ByteAlphabet& ByteAlphabet::get() {
  static const ByteAlphabet instance;
  return instance;
}

bool ByteAlphabet::read(std::string_view text, std::string& out) const {
  const size_t before = out.size();
  while (!text.empty()) {
    const CodePoint c = front_code_point(text);
    const int byte = c.valid && c.value < byte_of.size() ? byte_of[c.value] : -1;
    if (byte < 0) {
      out.resize(before);
      return false;
    }
    out += static_cast<char>(byte);
    text.remove_prefix(c.length);
  }
  return true;
}

}  // namespace nibble::models
