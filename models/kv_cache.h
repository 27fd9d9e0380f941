// SPDX-License-Identifier: Apache-2.0
// Pages of 32 tokens of keys and values (docs/ops.md, "Attention"), or of the latent vectors they are made of, in f32,
// f16, bf16 or i8, preallocated for all layers and shared between sequences that begin alike (reference counts).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "models/arch.h"
#include "tensor/buffer.h"
#include "tensor/tensor.h"

namespace nibble::models {

/// "f32", "f16", "bf16", or "q8_0": i8 codes with a scale per position and head (32 bits per element, 16, 16, and
/// 8 + 32 / head size). Throws Error naming the known ones.
DType parse_cache_type(std::string_view name);
std::string_view cache_type_name(DType type);

class KvCache {
 public:
  static constexpr int page_tokens = 32;
  /// Room for `tokens` positions in all, for at most `sequences` sequences of at most `sequence_tokens` each (0: as
  /// many as there are in all). Throws Error when memory can't be had.
  KvCache(const Config& config, int64_t tokens, int sequences, int64_t sequence_tokens = 0,
          DType type = DType::f16);
  static uint64_t bytes_per_token(const Config& config, DType type = DType::f16);
  /// What the attention op asks of one layer's pages.
  static TensorDesc k_desc(const Config& config, int64_t pages, DType type);
  static TensorDesc v_desc(const Config& config, int64_t pages, DType type);

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
  /// What the positions of a sequence mean, where the model has a PrefixRule: `tokens` of them see each other; those
  /// behind have the position `mark`. Kept by share(), forgotten when truncate() or share() cut into it.
  struct Prefix {
    int64_t tokens = 0;  ///< 0: nothing is known
    int32_t mark = 0;
  };
  const Prefix& prefix(int sequence) const { return table_rows_[sequence].prefix; }
  void set_prefix(int sequence, const Prefix& prefix) { table_rows_[sequence].prefix = prefix; }
  /// `to` becomes a copy of the first `tokens` positions of `from`; whole pages are shared.
  void share(int from, int to, int64_t tokens);

  Tensor page_table() const;           ///< i32 (sequences, max_pages)
  DType type() const { return k_desc_.dtype; }
  Tensor k_pages(int layer) const { return {k_desc_, k_[layer].data()}; }
  Tensor v_pages(int layer) const { return {v_desc_, v_[layer].data()}; }

 private:
  struct Row {
    std::vector<int32_t> pages;
    int64_t tokens = 0;
    Prefix prefix;
  };
  int take_page();
  void drop_page(int32_t page);
  void copy_page(int32_t from, int32_t to);
  void set_page(int sequence, int64_t index, int32_t page);
  int layers_, max_pages_, pages_;
  TensorDesc k_desc_, v_desc_;  ///< of one layer
  std::vector<Row> table_rows_;
  std::vector<int32_t> table_, free_, uses_;
  std::vector<Buffer> k_, v_;
};

}  // namespace nibble::models
