// SPDX-License-Identifier: Apache-2.0
// A fast hash that tells contents apart: for mistakes and damage, not against someone who makes collisions on purpose.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "tensor/buffer.h"
#include "tensor/parallel.h"

namespace nibble::models {

struct ContentHash {
  uint64_t low = 0, high = 0;
  bool operator==(const ContentHash&) const = default;
  std::string hex() const;  ///< 32 digits
};

ContentHash content_hash(std::span<const std::byte> bytes, uint64_t seed = 0);
inline ContentHash content_hash(std::string_view text) { return content_hash(std::as_bytes(std::span(text))); }
/// Reads the whole file. The number of threads does not change the result. Throws Error when it cannot be read.
ContentHash content_hash(const MappedFile& file, ThreadPool& pool);

}  // namespace nibble::models
