// SPDX-License-Identifier: Apache-2.0
#include "models/text/special_tokens.h"

#include <algorithm>

namespace nibble::models {

namespace {
bool touches(std::span<const TextRange> ranges, size_t begin, size_t end) {
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), begin,
                                      [](size_t at, const TextRange& range) { return at < range.end; });
  return after != ranges.end() && after->begin < end;
}
}  // namespace

int32_t SpecialTokens::child(int32_t node, char byte) const {
  int32_t at = nodes_[static_cast<size_t>(node)].child;
  while (at >= 0 && nodes_[static_cast<size_t>(at)].byte != byte) at = nodes_[static_cast<size_t>(at)].sibling;
  return at;
}

void SpecialTokens::add(std::string_view text, int32_t id, bool always) {
  if (text.empty()) return;
  const auto make = [&](char byte, int32_t sibling) {
    nodes_.push_back({-1, sibling, -1, byte, false});
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
  nodes_[static_cast<size_t>(node)].id = id;
  nodes_[static_cast<size_t>(node)].always = always;
}

SpecialTokens::Match SpecialTokens::next(std::string_view text, size_t from, bool only_always,
                                       std::span<const TextRange> plain) const {
  for (size_t at = from; at < text.size(); ++at) {
    int32_t node = roots_[static_cast<uint8_t>(text[at])];
    if (node < 0) continue;
    Match best{text.size(), 0, -1};
    for (size_t end = at + 1; node >= 0; ++end) {
      const Node& here = nodes_[static_cast<size_t>(node)];
      if (here.id >= 0 && (here.always || (!only_always && !touches(plain, at, end)))) best = {at, end - at, here.id};
      if (end == text.size()) break;
      node = child(node, text[end]);
    }
    if (best.id >= 0) return best;
  }
  return {text.size(), 0, -1};
}

}  // namespace nibble::models
