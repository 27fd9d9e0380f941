// SPDX-License-Identifier: Apache-2.0
// Internal to the built-ins: reading optional arguments.
#pragma once

#include <string>
#include <span>
#include <string_view>

#include "models/text/jinja/interpreter.h"

namespace nibble::models::jinja {

inline bool flag(const Value* given, bool missing = false) { return given != nullptr ? truth(*given) : missing; }
inline bool present(const Value* given) { return given != nullptr && !given->is(Value::Kind::none); }
inline int64_t whole_or(const Value* given, int64_t missing, std::string_view what) {
  return present(given) ? whole(*given, what) : missing;
}
/// Of text filters: anything becomes the text that printing it gives.
inline Text input_text(const Call& call) { return call.args.empty() ? Text{} : str(call.args[0]); }

struct NamedBuiltin {
  std::string_view name;
  Builtin function;
};

}  // namespace nibble::models::jinja
