// SPDX-License-Identifier: Apache-2.0
// Finished machine code: an executable page that is never written again.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace nibble::jit {

class Code {
 public:
  Code() = default;
  /// Copies `bytes` to new pages, then makes them read and execute only. Writes <name>.bin into $NIBBLE_JIT_DUMP if
  /// that is set and an entry into /tmp/perf-<pid>.map if NIBBLE_PERF_MAP=1. Throws Error when the system refuses.
  Code(std::string name, std::span<const unsigned char> bytes);
  ~Code();
  Code(Code&& other) noexcept;
  Code& operator=(Code&& other) noexcept;

  const std::string& name() const { return name_; }
  std::span<const unsigned char> bytes() const { return {data_, size_}; }
  /// The entry point: void(const Args*), Args being the emitter's argument struct.
  template <class Args>
  void operator()(const Args& args) const {
    reinterpret_cast<void (*)(const Args*)>(reinterpret_cast<size_t>(data_))(&args);
  }

 private:
  std::string name_;
  unsigned char* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace nibble::jit
