// SPDX-License-Identifier: Apache-2.0
#include "models/text/utf8.h"

#include <cstdint>

#include "models/text/tokenizer.h"

namespace nibble::models {

Utf8Char utf8_front(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {Utf8Char::Kind::valid, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8Char::Kind::invalid, 1};
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {Utf8Char::Kind::incomplete, i};
    uint8_t low = 0x80, high = 0xBF;
    if (i == 1) {
      if (lead == 0xE0) low = 0xA0;
      if (lead == 0xED) high = 0x9F;
      if (lead == 0xF0) low = 0x90;
      if (lead == 0xF4) high = 0x8F;
    }
    if (byte(i) < low || byte(i) > high) return {Utf8Char::Kind::invalid, i};
  }
  return {Utf8Char::Kind::valid, length};
}

namespace {
constexpr std::string_view replacement = "\xEF\xBF\xBD";
}

std::string Utf8Stream::push(std::string_view bytes) {
  std::string joined;
  if (!pending_.empty()) {
    joined = pending_ + std::string(bytes);
    pending_.clear();
    bytes = joined;
  }
  std::string out;
  while (!bytes.empty()) {
    const Utf8Char front = utf8_front(bytes);
    if (front.kind == Utf8Char::Kind::incomplete) {
      pending_ = bytes;
      break;
    }
    out += front.kind == Utf8Char::Kind::valid ? bytes.substr(0, front.length) : replacement;
    bytes.remove_prefix(front.length);
  }
  return out;
}

std::string Utf8Stream::flush() {
  const bool incomplete = !pending_.empty();
  pending_.clear();
  return std::string(incomplete ? replacement : std::string_view());
}

}  // namespace nibble::models
