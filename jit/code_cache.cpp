// SPDX-License-Identifier: Apache-2.0
#include "jit/code_cache.h"

#include <exception>

namespace nibble::jit {

const Code& CodeCache::find(const std::string& bytes, FunctionRef<Code()> emit) {
  std::promise<Code> promise;
  std::shared_future<Code> code;
  bool mine = false;
  {
    const std::lock_guard guard(lock_);
    auto [entry, added] = entries_.try_emplace(bytes);
    mine = added;
    if (mine) entry->second = promise.get_future().share();
    code = entry->second;
  }
  if (mine) {
    try {
      promise.set_value(emit());
    } catch (...) {
      promise.set_exception(std::current_exception());
    }
  }
  return code.get();
}

CodeCache& code_cache() {
  static CodeCache cache;
  return cache;
}

}  // namespace nibble::jit
