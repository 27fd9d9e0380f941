// SPDX-License-Identifier: Apache-2.0
// The `loop` of a running for.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "models/text/jinja/value.h"

namespace nibble::models::jinja {

/// Items are asked for one at a time, since the condition of a for may depend on what its body did.
struct Loop {
  std::vector<Value> items;
  std::function<bool(const Value&)> accepts;  ///< the `if` of the for; empty: all
  int64_t index0 = -1;
  int64_t depth0 = 0;
  std::optional<Value> current, previous;
  std::optional<std::vector<Value>> changed;  ///< what changed() was last given
  bool over = false;           ///< its for has ended
  std::function<Value(Call&)> recurse;  ///< of `for ... recursive`

  /// False at the end.
  bool advance();
  const Value* peek();
  int64_t length();

 private:
  std::vector<Value> ahead_;  ///< accepted already
  size_t taken_ = 0, seen_ = 0;
  bool find_next();
};

}  // namespace nibble::models::jinja
