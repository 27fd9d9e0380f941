// SPDX-License-Identifier: Apache-2.0
// Pair merging, best rank first and leftmost among equals: the core of every byte-pair encoding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace nibble::models {

struct Symbol {
  int32_t id;   ///< negative: merges with nothing
  uint32_t at;  ///< where its text begins
  int32_t previous, next;
};

/// (left, right) -> (rank, merged). Open addressing, so that a look-up is one cache line.
class PairTable {
 public:
  struct Entry {
    uint64_t key;
    uint32_t rank;
    int32_t merged;
  };
  explicit PairTable(size_t pairs);
  /// The first entry of a pair stays.
  void add(int32_t left, int32_t right, uint32_t rank, int32_t merged);
  const Entry* find(int32_t left, int32_t right) const;

 private:
  static uint64_t key(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  size_t slot(uint64_t key) const;
  void grow();
  std::vector<Entry> entries_;
  size_t used_ = 0;
};

/// Working memory of one thread.
class Merger {
 public:
  std::vector<Symbol> symbols;         ///< fill id and at, call merge(), read what is left
  void merge(const PairTable& pairs);  ///< O(n log n)

 private:
  struct Candidate {
    uint32_t rank;
    int32_t left, left_id, right_id, merged;
  };
  void push(const PairTable& pairs, int32_t left);
  std::vector<Candidate> heap_;
};

}  // namespace nibble::models
