// SPDX-License-Identifier: Apache-2.0
#include "models/text/jinja/loop.h"

namespace nibble::models::jinja {

bool Loop::find_next() {
  while (seen_ < items.size()) {
    const Value& item = items[seen_++];
    if (accepts && !accepts(item)) continue;
    ahead_.push_back(item);
    return true;
  }
  return false;
}

bool Loop::advance() {
  if (taken_ == ahead_.size() && !find_next()) return false;
  previous = current;
  current = ahead_[taken_++];
  ++index0;
  return true;
}

const Value* Loop::peek() { return taken_ < ahead_.size() || find_next() ? &ahead_[taken_] : nullptr; }

int64_t Loop::length() {
  while (find_next()) {
  }
  return static_cast<int64_t>(ahead_.size());
}

}  // namespace nibble::models::jinja
