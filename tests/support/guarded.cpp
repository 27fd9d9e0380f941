// SPDX-License-Identifier: Apache-2.0
#include "tests/support/guarded.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace nibble::test {

namespace {
constexpr size_t page = 4096;
}

Guarded::Guarded(size_t bytes, Flush flush, size_t alignment) : size_(bytes) {
  const size_t inner = (bytes + page - 1) / page * page;
  mapped_ = inner + 2 * page;
  mapping_ = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping_ == MAP_FAILED) throw std::runtime_error("mmap failed");
  std::byte* begin = static_cast<std::byte*>(mapping_) + page;
  if (inner != 0 && mprotect(begin, inner, PROT_READ | PROT_WRITE) != 0) throw std::runtime_error("mprotect failed");
  std::memset(begin, 0xa5, inner);
  data_ = begin;
  if (flush == Flush::end) data_ += (inner - bytes) / alignment * alignment;
}

Guarded::~Guarded() {
  if (mapping_ != nullptr) munmap(mapping_, mapped_);
}

Guarded::Guarded(Guarded&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapping_(std::exchange(other.mapping_, nullptr)),
      mapped_(std::exchange(other.mapped_, 0)) {}

}  // namespace nibble::test
