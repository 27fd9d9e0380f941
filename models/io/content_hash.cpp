// SPDX-License-Identifier: Apache-2.0
// Eight lanes of 64 bits; every step is invertible in its lane, so that no single changed word can go unnoticed.
#include "models/io/content_hash.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

namespace nibble::models {

namespace {

constexpr uint64_t prime = 0x9e3779b97f4a7c15;  // 2^64 / golden ratio, odd
constexpr size_t lanes = 8, stripe = lanes * sizeof(uint64_t);
constexpr size_t chunk_bytes = 256 << 10;  // of a file: what a worker reads stays in its L2

constexpr uint64_t mix(uint64_t x) {
  x = (x ^ x >> 32) * prime;
  x = (x ^ x >> 29) * prime;
  return x ^ x >> 32;
}

void add_stripe(uint64_t (&sum)[lanes], const std::byte* data) {
  uint64_t words[lanes];
  std::memcpy(words, data, stripe);
  for (size_t i = 0; i < lanes; ++i) {
    const uint64_t x = (sum[i] ^ words[i]) * prime;
    sum[i] = x ^ x >> 32;
  }
}

}  // namespace

std::string ContentHash::hex() const {
  std::string text;
  for (uint64_t half : {high, low})
    for (int shift = 60; shift >= 0; shift -= 4) text += "0123456789abcdef"[half >> shift & 15];
  return text;
}

ContentHash content_hash(std::span<const std::byte> bytes, uint64_t seed) {
  uint64_t sum[lanes];
  for (size_t i = 0; i < lanes; ++i) sum[i] = mix(seed * lanes + i + 1);
  size_t at = 0;
  for (; at + stripe <= bytes.size(); at += stripe) add_stripe(sum, bytes.data() + at);
  if (at < bytes.size()) {
    std::byte last[stripe] = {};
    std::memcpy(last, bytes.data() + at, bytes.size() - at);
    add_stripe(sum, last);
  }
  ContentHash hash{mix(bytes.size()), mix(~bytes.size())};
  for (size_t i = 0; i < lanes; ++i) {
    hash.low = mix(hash.low ^ sum[i]);
    hash.high = mix(hash.high + std::rotl(sum[i], 31) * prime);
  }
  return hash;
}

ContentHash content_hash(const MappedFile& file, ThreadPool& pool) {
  const size_t size = file.bytes().size();
  std::vector<ContentHash> chunks((size + chunk_bytes - 1) / chunk_bytes + 1);
  chunks.back().low = size;
  std::vector<Buffer> buffers(static_cast<size_t>(pool.size()));
  pool.for_each(static_cast<int64_t>(chunks.size()) - 1, 4, [&](int64_t begin, int64_t end, const Worker& worker) {
    Buffer& buffer = buffers[static_cast<size_t>(worker.index)];
    if (buffer.size() == 0) buffer = Buffer(chunk_bytes);
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      const size_t offset = i * chunk_bytes;
      const std::span<std::byte> part(buffer.data(), std::min(chunk_bytes, size - offset));
      file.read(offset, part);
      chunks[i] = content_hash(part, i);
    }
  });
  return content_hash(std::as_bytes(std::span(chunks)));
}

}  // namespace nibble::models
