// SPDX-License-Identifier: Apache-2.0
#include "models/text/special_tokens.h"

#include <algorithm>

#include "models/text/unicode.h"

namespace nibble::models {

namespace {
bool touches(std::span<const TextRange> ranges, size_t begin, size_t end) {
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), begin,
                                      [](size_t at, const TextRange& range) { return at < range.end; });
  return after != ranges.end() && after->begin < end;
}

/// Where the character before `at` begins.
size_t back(std::string_view text, size_t at) {
  size_t begin = at - 1;
  while (begin > 0 && at - begin < 4 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  return begin;
}

bool inside_word(std::string_view text, size_t begin, size_t end) {
  if (begin > 0 && is_word(front_code_point(text.substr(back(text, begin))).value)) return true;
  return end < text.size() && is_word(front_code_point(text.substr(end)).value);
}
}  // namespace

int32_t SpecialTokens::child(int32_t node, char byte) const {
  int32_t at = nodes_[static_cast<size_t>(node)].child;
  while (at >= 0 && nodes_[static_cast<size_t>(at)].byte != byte) at = nodes_[static_cast<size_t>(at)].sibling;
  return at;
}

void SpecialTokens::add(std::string_view text, int32_t id, Flags flags) {
  if (text.empty()) return;
  const auto make = [&](char byte, int32_t sibling) {
    nodes_.push_back({-1, sibling, -1, byte, {}});
    return static_cast<int32_t>(nodes_.size() - 1);
  };
  int32_t& root = roots_[static_cast<uint8_t>(text[0])];
  if (root < 0) root = make(text[0], -1);
  int32_t node = root;
  for (char byte : text.substr(1)) {
    int32_t next = child(node, byte);
    if (next < 0) {
      next = make(byte, nodes_[static_cast<size_t>(node)].child);
      nodes_[static_cast<size_t>(node)].child = next;
    }
    node = next;
  }
  Node& last = nodes_[static_cast<size_t>(node)];
  if (last.id >= 0) return;
  last.id = id;
  last.flags = flags;
}

SpecialTokens::Match SpecialTokens::next(std::string_view text, size_t from, bool only_always,
                                       std::span<const TextRange> plain) const {
  if (nodes_.empty()) return {text.size(), 0, -1};
  for (size_t at = from; at < text.size(); ++at) {
    int32_t node = roots_[static_cast<uint8_t>(text[at])];
    if (node < 0) continue;
    Match best{text.size(), 0, -1};
    Flags flags;
    for (size_t end = at + 1; node >= 0; ++end) {
      const Node& here = nodes_[static_cast<size_t>(node)];
      const bool allowed = here.flags.always || (!only_always && !touches(plain, at, end));
      if (here.id >= 0 && allowed) {
        best = {at, end - at, here.id};
        flags = here.flags;
      }
      if (end == text.size()) break;
      node = child(node, text[end]);
    }
    if (best.id < 0) continue;
    size_t begin = best.at, end = best.at + best.length;
    if (flags.single_word && inside_word(text, begin, end)) {
      at = end - 1;
      continue;
    }
    while (flags.left && begin > from && is_white_space(front_code_point(text.substr(back(text, begin))).value))
      begin = std::max(from, back(text, begin));
    while (flags.right && end < text.size()) {
      const CodePoint c = front_code_point(text.substr(end));
      if (!is_white_space(c.value)) break;
      end += c.length;
    }
    return {begin, end - begin, best.id};
  }
  return {text.size(), 0, -1};
}

}  // namespace nibble::models
