// SPDX-License-Identifier: Apache-2.0
// Pages of 32 tokens of keys (kv_heads, head_dim, 32) and values (kv_heads, 32, head_dim) in f16, preallocated for all
// layers and shared between sequences that begin alike (reference counts).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/arch.h"
#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace nibble::models {

class KvCache {
 public:
  static constexpr int page_tokens = 32;
  /// Room for `tokens` positions in all, for at most `sequences` sequences of at most `sequence_tokens` each (0: as
  /// many as there are in all). Throws Error when memory can't be had.
  KvCache(const Config& config, int64_t tokens, int sequences, int64_t sequence_tokens = 0);
  static uint64_t bytes_per_token(const Config& config);

  int sequences() const { return static_cast<int>(table_rows_.size()); }
  int max_pages() const { return max_pages_; }  ///< columns of the page table
  int pages() const { return pages_; }          ///< in the pool
  int free_pages() const { return static_cast<int>(free_.size()); }

  /// Positions of the sequence that can be written and read.
  int64_t tokens(int sequence) const;
  /// Makes positions [0, tokens) of the sequence writable (a shared last page is copied). Throws Error naming the
  /// needed and the free pages when there are not enough; nothing has changed then.
  void reserve(int sequence, int64_t tokens);
  /// Forgets positions from `tokens` on.
  void truncate(int sequence, int64_t tokens);
  /// `to` becomes a copy of the first `tokens` positions of `from`; whole pages are shared.
  void share(int from, int to, int64_t tokens);

  Tensor page_table() const;           ///< i32 (sequences, max_pages)
  Tensor k_pages(int layer) const;     ///< f16 (pages, kv_heads, head_dim, 32)
  Tensor v_pages(int layer) const;     ///< f16 (pages, kv_heads, 32, head_dim)

 private:
  struct Row {
    std::vector<int32_t> pages;
    int64_t tokens = 0;
  };
  int take_page();
  void drop_page(int32_t page);
  void copy_page(int32_t from, int32_t to);
  void set_page(int sequence, int64_t index, int32_t page);
  int layers_, kv_heads_, head_dim_, max_pages_, pages_;
  std::vector<Row> table_rows_;
  std::vector<int32_t> table_, free_, uses_;
  std::vector<Buffer> k_, v_;
};

}  // namespace nibble::models
