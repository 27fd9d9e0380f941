// SPDX-License-Identifier: Apache-2.0
// Memory between PROT_NONE pages: any access outside it faults, also from generated code, which sanitizers cannot see.
#pragma once

#include <cstddef>

namespace nibble::test {

enum class Flush { begin, end };  ///< which end of the buffer touches the forbidden page

/// `bytes` of memory filled with 0xa5. With Flush::end the data ends at the forbidden page, rounded down to
/// `alignment` (a power of two up to 4096), so up to alignment - 1 bytes stay accessible behind it.
class Guarded {
 public:
  explicit Guarded(size_t bytes, Flush flush = Flush::end, size_t alignment = 1);
  ~Guarded();
  Guarded(Guarded&& other) noexcept;
  Guarded& operator=(Guarded&&) = delete;

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  void* mapping_ = nullptr;
  size_t mapped_ = 0;
};

}  // namespace nibble::test
