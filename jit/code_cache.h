// SPDX-License-Identifier: Apache-2.0
// Key -> code, emitted once per process however many threads ask at the same time.
#pragma once

#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <unordered_map>

#include "jit/code.h"
#include "tensor/parallel.h"

namespace nibble::jit {

/// Thread safe. Emits outside its lock: threads asking for other keys do not wait. An emitter that throws is not asked
/// again; every get() of its key throws the same exception. Code lives as long as the cache.
class CodeCache {
 public:
  /// Key must have no padding: its bytes are the key, so no field can be forgotten. Keys of different emitters may be
  /// of one type only if their bytes differ.
  template <class Key>
  const Code& get(const Key& key, FunctionRef<Code()> emit) {
    static_assert(std::has_unique_object_representations_v<Key>);
    static const char tag = 0;  // its address tells key types apart
    const void* address = &tag;
    std::string bytes(reinterpret_cast<const char*>(&address), sizeof(address));
    bytes.append(reinterpret_cast<const char*>(&key), sizeof(Key));
    return find(bytes, emit);
  }

 private:
  const Code& find(const std::string& bytes, FunctionRef<Code()> emit);

  std::mutex lock_;
  std::unordered_map<std::string, std::shared_future<Code>> entries_;
};

/// The one cache of the process.
CodeCache& code_cache();

}  // namespace nibble::jit
