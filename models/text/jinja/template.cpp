// SPDX-License-Identifier: Apache-2.0
#include "models/text/jinja/template.h"

#include "models/text/jinja/interpreter.h"
#include "models/text/jinja/parser.h"
#include "tensor/check.h"

namespace nibble::models::jinja {

Template Template::parse(std::string_view source) {
  Template out;
  try {
    out.body_ = std::make_shared<const Body>(jinja::parse(source));
  } catch (const Error& error) {
    fail("chat template, ", error.what());
  }
  return out;
}

Rendered Template::render(const Value& variables, const RenderOptions& options) const {
  NIBBLE_CHECK(variables.is(Value::Kind::dict), "the variables of a template are a dict, not a ", type_name(variables));
  Interpreter interpreter(variables.dict(), options);
  try {
    return interpreter.run(*body_);
  } catch (const Error& error) {
    fail("chat template, line ", interpreter.line(), ": ", error.what());
  }
}

}  // namespace nibble::models::jinja
