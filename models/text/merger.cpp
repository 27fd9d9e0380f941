// SPDX-License-Identifier: Apache-2.0
#include "models/text/merger.h"

#include <algorithm>
#include <bit>

namespace nibble::models {

namespace {
constexpr uint64_t free_key = ~uint64_t{0};  // (-1, -1) is never added
constexpr int32_t gone = INT32_MIN;
}  // namespace

PairTable::PairTable(size_t pairs) : entries_(std::bit_ceil(std::max<size_t>(16, pairs * 2)), {free_key, 0, 0}) {}

size_t PairTable::slot(uint64_t pair) const {
  uint64_t h = pair;
  h = (h ^ h >> 33) * 0xFF51AFD7ED558CCDu;
  h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53u;
  size_t at = static_cast<size_t>(h ^ h >> 33) & (entries_.size() - 1);
  while (entries_[at].key != free_key && entries_[at].key != pair) at = (at + 1) & (entries_.size() - 1);
  return at;
}

void PairTable::add(int32_t left, int32_t right, uint32_t rank, int32_t merged) {
  if (2 * (used_ + 1) > entries_.size()) grow();
  Entry& entry = entries_[slot(key(left, right))];
  if (entry.key != free_key) return;
  entry = {key(left, right), rank, merged};
  ++used_;
}

void PairTable::grow() {
  std::vector<Entry> old(entries_.size() * 2, {free_key, 0, 0});
  old.swap(entries_);
  for (const Entry& entry : old)
    if (entry.key != free_key) entries_[slot(entry.key)] = entry;
}

const PairTable::Entry* PairTable::find(int32_t left, int32_t right) const {
  if (left < 0 || right < 0) return nullptr;
  const Entry& entry = entries_[slot(key(left, right))];
  return entry.key == free_key ? nullptr : &entry;
}

namespace {
// A heap keeps the largest in front, so "less" is "merges later".
constexpr auto later = [](const auto& a, const auto& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
};
}  // namespace

void Merger::push(const PairTable& pairs, int32_t left) {
  const Symbol& symbol = symbols[static_cast<size_t>(left)];
  if (symbol.next < 0) return;
  const int32_t right_id = symbols[static_cast<size_t>(symbol.next)].id;
  const PairTable::Entry* entry = pairs.find(symbol.id, right_id);
  if (!entry) return;
  heap_.push_back({entry->rank, left, symbol.id, right_id, entry->merged});
  std::push_heap(heap_.begin(), heap_.end(), later);
}

void Merger::merge(const PairTable& pairs) {
  const auto count = static_cast<int32_t>(symbols.size());
  heap_.clear();
  for (int32_t i = 0; i < count; ++i) {
    symbols[static_cast<size_t>(i)].previous = i - 1;
    symbols[static_cast<size_t>(i)].next = i + 1 < count ? i + 1 : -1;
  }
  for (int32_t i = 0; i + 1 < count; ++i) push(pairs, i);
  bool changed = false;
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), later);
    const Candidate best = heap_.back();
    heap_.pop_back();
    Symbol& left = symbols[static_cast<size_t>(best.left)];
    if (left.id != best.left_id || left.next < 0) continue;
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    if (right.id != best.right_id) continue;
    left.id = best.merged;
    left.next = right.next;
    right.id = gone;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = best.left;
    changed = true;
    if (left.previous >= 0) push(pairs, left.previous);
    push(pairs, best.left);
  }
  if (changed) std::erase_if(symbols, [](const Symbol& symbol) { return symbol.id == gone; });
}

}  // namespace nibble::models
