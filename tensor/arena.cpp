// SPDX-License-Identifier: Apache-2.0
#include "tensor/arena.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace nibble {

namespace {

constexpr size_t align64(size_t bytes) { return (bytes + 63) / 64 * 64; }

struct Block {
  size_t begin = 0, end = 0;
};

/// The tightest gap between the blocks (sorted by begin, they may overlap) that holds `bytes`, else the end of all.
size_t best_offset(std::span<const Block> blocks, size_t bytes) {
  size_t best = SIZE_MAX;
  size_t best_gap = SIZE_MAX;
  size_t end = 0;
  for (const Block& b : blocks) {
    if (b.begin >= end + bytes && b.begin - end < best_gap) {
      best = end;
      best_gap = b.begin - end;
    }
    end = std::max(end, b.end);
  }
  return best == SIZE_MAX ? end : best;
}

}  // namespace

ArenaLayout lay_out(std::span<const Lifetime> values) {
  ArenaLayout layout;
  layout.offsets.resize(values.size());
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return values[a].bytes > values[b].bytes; });
  std::vector<size_t> placed;
  std::vector<Block> blocks;
  for (size_t i : order) {
    const Lifetime& v = values[i];
    blocks.clear();
    for (size_t j : placed) {
      if (values[j].first <= v.last && v.first <= values[j].last) {
        blocks.push_back({layout.offsets[j], layout.offsets[j] + align64(values[j].bytes)});
      }
    }
    std::ranges::sort(blocks, {}, &Block::begin);
    layout.offsets[i] = best_offset(blocks, align64(v.bytes));
    layout.bytes = std::max(layout.bytes, layout.offsets[i] + align64(v.bytes));
    placed.push_back(i);
  }
  return layout;
}

}  // namespace nibble
