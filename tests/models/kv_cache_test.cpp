// SPDX-License-Identifier: Apache-2.0
#include "models/kv_cache.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tensor/check.h"

namespace nibble::models {
namespace {

Config config() {
  Config c;
  c.layers = 2, c.heads = 4, c.kv_heads = 2, c.head_dim = 8;
  return c;
}

int32_t page(const KvCache& cache, int sequence, int index) {
  return cache.page_table().as<int32_t>()[sequence * cache.max_pages() + index];
}

uint16_t& k_at(const KvCache& cache, int layer, int32_t p) {
  return cache.k_pages(layer).as<uint16_t>()[p * 2 * 8 * 32];
}

TEST(KvCache, CountsPagesOfThirtyTwo) {
  KvCache cache(config(), 100, 2);
  EXPECT_EQ(cache.pages(), 4);
  EXPECT_EQ(KvCache::bytes_per_token(config()), 2u * 2 * 2 * 8 * 2);
  cache.reserve(0, 1);
  EXPECT_EQ(cache.free_pages(), 3);
  cache.reserve(0, 32);
  EXPECT_EQ(cache.free_pages(), 3);
  cache.reserve(0, 33);
  EXPECT_EQ(cache.free_pages(), 2);
  cache.truncate(0, 32);
  EXPECT_EQ(cache.free_pages(), 3);
  EXPECT_EQ(cache.tokens(0), 32);
}

TEST(KvCache, TypesAndSizesOfPages) {
  Config c = config();
  c.value_dim = 24;
  for (auto [type, bytes] : {std::pair{DType::f32, 2u * 2 * (8 + 24) * 4}, {DType::f16, 2u * 2 * (8 + 24) * 2},
                             {DType::bf16, 2u * 2 * (8 + 24) * 2}, {DType::i8, 2u * 2 * (8 + 24 + 8)}}) {
    KvCache cache(c, 64, 1, 0, type);
    EXPECT_EQ(KvCache::bytes_per_token(c, type), bytes);
    EXPECT_EQ(nibble::bytes(cache.k_pages(0).desc) + nibble::bytes(cache.v_pages(1).desc), bytes * 64 / 2);
    EXPECT_EQ(parse_cache_type(cache_type_name(type)), type);
  }
  EXPECT_THROW(parse_cache_type("q4_0"), Error);
}

TEST(KvCache, KeepsLatentVectorsOnceForAllHeads) {
  Config c = config();
  c.heads = c.kv_heads = 16, c.head_dim = 24, c.value_dim = 16, c.rope_dim = 8, c.latent = 40;
  for (auto [type, bytes] : {std::pair{DType::f16, 2u * (40 + 8) * 2}, {DType::i8, 2u * (40 + 8 + 8)}}) {
    KvCache cache(c, 64, 1, 0, type);
    EXPECT_EQ(KvCache::bytes_per_token(c, type), bytes);
    EXPECT_EQ(nibble::bytes(cache.k_pages(0).desc) + nibble::bytes(cache.v_pages(1).desc), bytes * 64 / 2);
  }
}

TEST(KvCache, CopiesWholePagesOfCodesAndScales) {
  KvCache cache(config(), 320, 2, 0, DType::i8);
  cache.reserve(0, 40);
  cache.share(0, 1, 40);
  const int32_t from = page(cache, 0, 1);
  const size_t bytes = 2 * (8 + 4) * 32;
  for (int layer : {0, 1})
    for (const Tensor& pages : {cache.k_pages(layer), cache.v_pages(layer)})
      std::memset(pages.data + from * bytes, layer + 7, bytes);
  cache.reserve(1, 41);
  ASSERT_NE(page(cache, 1, 1), from);
  for (int layer : {0, 1})
    for (const Tensor& pages : {cache.k_pages(layer), cache.v_pages(layer)})
      EXPECT_EQ(std::memcmp(pages.data + page(cache, 1, 1) * bytes, pages.data + from * bytes, bytes), 0);
}

TEST(KvCache, SharedPagesAreCopiedOnlyWhenWritten) {
  KvCache cache(config(), 320, 2);
  cache.reserve(0, 40);
  k_at(cache, 1, page(cache, 0, 1)) = 77;
  cache.share(0, 1, 40);
  EXPECT_EQ(cache.free_pages(), 8);
  EXPECT_EQ(page(cache, 0, 0), page(cache, 1, 0));
  EXPECT_EQ(page(cache, 0, 1), page(cache, 1, 1));
  cache.reserve(1, 41);
  EXPECT_EQ(page(cache, 0, 0), page(cache, 1, 0));
  EXPECT_NE(page(cache, 0, 1), page(cache, 1, 1));
  EXPECT_EQ(k_at(cache, 1, page(cache, 1, 1)), 77);
  const int32_t own = page(cache, 0, 1);
  cache.reserve(0, 41);
  EXPECT_EQ(page(cache, 0, 1), own) << "nobody else uses it any more";
  cache.truncate(0, 0);
  cache.truncate(1, 0);
  EXPECT_EQ(cache.free_pages(), 10);
}

TEST(KvCache, WholeSharedPagesStayShared) {
  KvCache cache(config(), 320, 2);
  cache.reserve(0, 100);
  cache.share(0, 1, 64);
  cache.reserve(1, 65);
  EXPECT_EQ(page(cache, 0, 1), page(cache, 1, 1));
  EXPECT_NE(page(cache, 0, 2), page(cache, 1, 2));
}

TEST(KvCache, FullCacheChangesNothing) {
  KvCache cache(config(), 96, 2);
  cache.reserve(0, 64);
  cache.reserve(1, 10);
  try {
    cache.reserve(1, 64);
    FAIL() << "there is no page left";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "KV cache is full: 1 pages of 32 tokens needed, 0 free");
  }
  EXPECT_EQ(cache.tokens(1), 10);
  cache.reserve(1, 32);
}

TEST(KvCache, OneSequenceKeepsToItsShare) {
  KvCache cache(config(), 128, 2, 64);
  EXPECT_EQ(cache.max_pages(), 2);
  EXPECT_THROW(cache.reserve(0, 65), Error);
  EXPECT_THROW(cache.reserve(2, 1), Error);
}

}  // namespace
}  // namespace nibble::models
