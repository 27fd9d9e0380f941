// SPDX-License-Identifier: Apache-2.0
#include "models/text/trie.h"

#include "tensor/check.h"

namespace nibble::models {

Trie::Trie() : slots_(64, {0, none}), values_(1, -1), mask_(63) {}

void Trie::grow() {
  std::vector<Slot> old(slots_.size() * 2, {0, none});
  old.swap(slots_);
  mask_ = slots_.size() - 1;
  for (const Slot& entry : old) {
    if (entry.child == none) continue;
    size_t at = slot(entry.key);
    while (slots_[at].child != none) at = (at + 1) & mask_;
    slots_[at] = entry;
  }
}

void Trie::add(std::string_view text, int32_t value) {
  uint32_t node = root;
  for (char byte : text) {
    uint32_t next = step(node, byte);
    if (next == none) {
      NIBBLE_CHECK(values_.size() < 1u << 24, "the texts of a vocabulary take more than 16777216 nodes");
      if (2 * values_.size() > slots_.size()) grow();
      next = static_cast<uint32_t>(values_.size());
      values_.push_back(-1);
      const uint32_t key = node << 8 | static_cast<uint8_t>(byte);
      size_t at = slot(key);
      while (slots_[at].child != none) at = (at + 1) & mask_;
      slots_[at] = {key, next};
    }
    node = next;
  }
  values_[node] = value;
}

Trie::Match Trie::longest(std::string_view text) const {
  Match best;
  uint32_t node = root;
  for (size_t i = 0; i < text.size(); ++i) {
    node = step(node, text[i]);
    if (node == none) break;
    if (values_[node] >= 0) best = {i + 1, values_[node]};
  }
  return best;
}

}  // namespace nibble::models
