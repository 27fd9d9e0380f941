// SPDX-License-Identifier: Apache-2.0
#include "models/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "tensor/check.h"

namespace nibble::models {

namespace {
int64_t pages_for(int64_t tokens) { return (tokens + KvCache::page_tokens - 1) / KvCache::page_tokens; }

/// Pages of rows that are columns, as those of keys.
TensorDesc columns(int64_t pages, int64_t heads, int64_t size, DType type) {
  const int64_t rows = type == DType::i8 ? size + size % 2 + 4 : size;
  return {{pages, heads, rows, KvCache::page_tokens}, type};
}
}  // namespace

DType parse_cache_type(std::string_view name) {
  for (DType type : {DType::f32, DType::f16, DType::bf16, DType::i8}) {
    if (name == cache_type_name(type)) return type;
  }
  fail("KV cache: expected a type of f32, f16, bf16 or q8_0, found ", name);
}

std::string_view cache_type_name(DType type) { return type == DType::i8 ? "q8_0" : name(type); }

TensorDesc KvCache::k_desc(const Config& c, int64_t pages, DType type) {
  return c.latent > 0 ? columns(pages, 1, c.latent, type) : columns(pages, c.kv_heads, c.head_dim, type);
}

TensorDesc KvCache::v_desc(const Config& c, int64_t pages, DType type) {
  if (c.latent > 0) return columns(pages, 1, c.rope_dim, type);
  if (type == DType::i8) return {{pages, c.kv_heads, c.value_size() + 4, page_tokens}, type};
  return {{pages, c.kv_heads, page_tokens, c.value_size()}, type};
}

uint64_t KvCache::bytes_per_token(const Config& c, DType type) {
  return (bytes(k_desc(c, 1, type)) + bytes(v_desc(c, 1, type))) / page_tokens * static_cast<uint64_t>(c.layers);
}

KvCache::KvCache(const Config& config, int64_t tokens, int sequences, int64_t sequence_tokens, DType type)
    : layers_(config.layers) {
  constexpr int64_t limit = int64_t{1} << 30;
  NIBBLE_CHECK(tokens >= 1 && tokens <= limit, "KV cache: expected 1 to ", limit, " positions, found ", tokens);
  NIBBLE_CHECK(sequences >= 1 && sequences <= 65536, "KV cache: expected 1 to 65536 sequences, found ", sequences);
  pages_ = static_cast<int>(pages_for(tokens));
  max_pages_ = sequence_tokens > 0 ? static_cast<int>(std::min<int64_t>(pages_for(sequence_tokens), pages_)) : pages_;
  table_rows_.resize(static_cast<size_t>(sequences));
  for (Row& row : table_rows_) row.pages.reserve(static_cast<size_t>(max_pages_));  // growing later would allocate
  table_.resize(static_cast<size_t>(sequences) * static_cast<size_t>(max_pages_));
  uses_.resize(static_cast<size_t>(pages_));
  for (int page = pages_ - 1; page >= 0; --page) free_.push_back(page);
  k_desc_ = k_desc(config, pages_, type);
  v_desc_ = v_desc(config, pages_, type);
  try {
    for (int layer = 0; layer < layers_; ++layer) {
      k_.emplace_back(bytes(k_desc_));
      v_.emplace_back(bytes(v_desc_));
    }
  } catch (const std::exception& error) {
    fail("KV cache of ", tokens, " positions needs ", bytes_per_token(config, type) * static_cast<uint64_t>(tokens),
         " bytes: ", error.what());
  }
}

int64_t KvCache::tokens(int sequence) const {
  NIBBLE_CHECK(sequence >= 0 && sequence < sequences(), "KV cache: sequence ", sequence, ": expected 0 to ",
               sequences() - 1);
  return table_rows_[sequence].tokens;
}

int KvCache::take_page() {
  const int page = free_.back();
  free_.pop_back();
  uses_[page] = 1;
  return page;
}

void KvCache::drop_page(int32_t page) {
  if (--uses_[page] == 0) free_.push_back(page);
}

void KvCache::set_page(int sequence, int64_t index, int32_t page) {
  table_[static_cast<size_t>(sequence) * static_cast<size_t>(max_pages_) + static_cast<size_t>(index)] = page;
}

void KvCache::copy_page(int32_t from, int32_t to) {
  for (const auto& [desc, buffers] : {std::pair{&k_desc_, &k_}, {&v_desc_, &v_}}) {
    const size_t page_bytes = bytes(*desc) / static_cast<size_t>(pages_);
    for (Buffer& buffer : *buffers)
      std::memcpy(buffer.data() + static_cast<size_t>(to) * page_bytes,
                  buffer.data() + static_cast<size_t>(from) * page_bytes, page_bytes);
  }
}

void KvCache::reserve(int sequence, int64_t tokens) {
  const int64_t have = this->tokens(sequence);
  if (tokens <= have) return;
  Row& row = table_rows_[sequence];
  const int64_t wanted = pages_for(tokens);
  NIBBLE_CHECK(wanted <= max_pages_, "KV cache: ", tokens, " positions asked for one sequence, room for ",
               int64_t{max_pages_} * page_tokens);
  const bool copies = have % page_tokens != 0 && uses_[row.pages.back()] > 1;
  const int64_t needed = wanted - static_cast<int64_t>(row.pages.size()) + (copies ? 1 : 0);
  NIBBLE_CHECK(needed <= free_pages(), "KV cache is full: ", needed, " pages of ", page_tokens, " tokens needed, ",
               free_pages(), " free");
  if (copies) {
    const int page = take_page();
    copy_page(row.pages.back(), page);
    drop_page(row.pages.back());
    row.pages.back() = page;
    set_page(sequence, static_cast<int64_t>(row.pages.size()) - 1, page);
  }
  while (static_cast<int64_t>(row.pages.size()) < wanted) {
    row.pages.push_back(take_page());
    set_page(sequence, static_cast<int64_t>(row.pages.size()) - 1, row.pages.back());
  }
  row.tokens = tokens;
}

void KvCache::truncate(int sequence, int64_t tokens) {
  if (tokens >= this->tokens(sequence)) return;
  NIBBLE_CHECK(tokens >= 0, "KV cache: can't truncate to ", tokens, " positions");
  Row& row = table_rows_[sequence];
  while (static_cast<int64_t>(row.pages.size()) > pages_for(tokens)) {
    drop_page(row.pages.back());
    row.pages.pop_back();
  }
  row.tokens = tokens;
  if (tokens < row.prefix.tokens) row.prefix = {};
}

void KvCache::share(int from, int to, int64_t tokens) {
  NIBBLE_CHECK(tokens >= 0 && tokens <= this->tokens(from), "KV cache: can't share ", tokens, " positions of sequence ",
               from, ", which has ", this->tokens(from));
  NIBBLE_CHECK(from != to, "KV cache: sequence ", from, " can't share with itself");
  truncate(to, 0);
  Row& row = table_rows_[to];
  for (int64_t i = 0; i < pages_for(tokens); ++i) {
    row.pages.push_back(table_rows_[from].pages[i]);
    ++uses_[row.pages.back()];
    set_page(to, i, row.pages.back());
  }
  row.tokens = tokens;
  row.prefix = tokens >= table_rows_[from].prefix.tokens ? table_rows_[from].prefix : Prefix{};
}

Tensor KvCache::page_table() const {
  return {{{sequences(), max_pages_}, DType::i32}, const_cast<int32_t*>(table_.data())};
}

}  // namespace nibble::models
