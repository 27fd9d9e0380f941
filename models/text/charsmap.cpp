// SPDX-License-Identifier: Apache-2.0
#include "models/text/charsmap.h"

#include <algorithm>

#include "tensor/check.h"

namespace nibble::models {

namespace {
uint32_t read_u32(std::string_view bytes) {
  uint32_t out = 0;
  for (int i = 3; i >= 0; --i) out = out << 8 | static_cast<uint8_t>(bytes[static_cast<size_t>(i)]);
  return out;
}
// A unit: offset to the children in bits 10-30 (bit 9: times 256), "a text ends here" in bit 8, the byte in bits 0-7.
// A unit that holds a value has bit 31.
uint32_t offset(uint32_t unit) { return (unit >> 10) << ((unit & 1u << 9) >> 6); }
bool ends(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t label(uint32_t unit) { return unit & (1u << 31 | 0xFF); }
}  // namespace

Charsmap::Charsmap(std::string_view blob) {
  if (blob.empty()) return;
  NIBBLE_CHECK(blob.size() >= 4, "a precompiled character map of ", blob.size(), " bytes");
  const uint32_t bytes = read_u32(blob);
  NIBBLE_CHECK(bytes % 4 == 0 && bytes <= blob.size() - 4, "the precompiled character map says that its trie has ",
               bytes, " bytes; expected a multiple of 4, at most ", blob.size() - 4);
  units_.reserve(bytes / 4);
  for (size_t at = 4; at < 4 + size_t{bytes}; at += 4) units_.push_back(read_u32(blob.substr(at)));
  pool_ = blob.substr(4 + size_t{bytes});
  // a text must not grow without bounds; the longest that Unicode's own rules need has 33 bytes
  constexpr size_t longest = 1024;
  for (size_t at = 0; at < pool_.size();) {
    const size_t end = std::min(pool_.find('\0', at), pool_.size());
    NIBBLE_CHECK(end - at <= longest, "the precompiled character map has a replacement of ", end - at,
                 " bytes; expected at most ", longest);
    at = end + 1;
  }
}

Charsmap::Match Charsmap::find(std::string_view text, bool first) const {
  Match best;
  if (units_.empty()) return best;
  size_t node = offset(units_[0]);
  for (size_t i = 0; i < text.size() && text[i] != '\0'; ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    node ^= byte;
    if (node >= units_.size() || label(units_[node]) != byte) break;
    const bool leaf = ends(units_[node]);
    node ^= offset(units_[node]);
    if (!leaf) continue;
    if (node >= units_.size()) break;
    const size_t at = units_[node] & ~(1u << 31);
    if (at >= pool_.size()) break;
    const size_t end = std::min(pool_.find('\0', at), pool_.size());
    best = {i + 1, std::string_view(pool_).substr(at, end - at)};
    if (first) break;
  }
  return best;
}

}  // namespace nibble::models
