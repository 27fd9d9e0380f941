// SPDX-License-Identifier: Apache-2.0
// Internal to the interpreter: counts what runs inside each other.
#pragma once

#include "models/text/jinja/interpreter.h"
#include "tensor/check.h"

namespace nibble::models::jinja {

class Interpreter::Level {
 public:
  explicit Level(Interpreter& in) : in_(in) {
    NIBBLE_CHECK(in_.level_ < in_.options_.max_depth, "calls and blocks are nested more than ", in_.options_.max_depth,
                 " deep");
    ++in_.level_;
  }
  ~Level() { --in_.level_; }
  Level(const Level&) = delete;

 private:
  Interpreter& in_;
};

}  // namespace nibble::models::jinja
