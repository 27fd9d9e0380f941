// SPDX-License-Identifier: Apache-2.0
// Jinja templates as Hugging Face transformers renders chat templates: Jinja2 in an immutable sandbox with trim_blocks
// and lstrip_blocks, loop controls, generation blocks, raise_exception, strftime_now and its tojson. Beyond the
// reference, append() and pop() work on lists. Templates come with files of strangers: steps, depth and size of the
// output are bounded, nothing but the given variables can be reached, and a broken template is an Error.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/text/jinja/value.h"

namespace nibble::models::jinja {

struct Stmt;

struct RenderOptions {
  uint64_t max_steps = 4'000'000;         ///< a long conversation takes some ten thousands
  size_t max_output_bytes = 16u << 20;    ///< of the result and of any text on the way
  int max_depth = 800;                    ///< of calls, blocks and expressions inside each other
  /// strftime_now(format); empty: the local time.
  std::function<std::string(const std::string& format)> now;
};

struct Rendered {
  Text text;
  std::vector<TextRange> generation;  ///< bytes inside of {% generation %} blocks
};

/// Immutable; rendering is thread safe.
class Template {
 public:
  /// Throws Error naming the line.
  static Template parse(std::string_view source);
  /// `variables` is a dict with text keys. Throws Error naming the line; what raise_exception says is in it.
  Rendered render(const Value& variables, const RenderOptions& options = {}) const;

 private:
  std::shared_ptr<const std::vector<Stmt>> body_;
};

}  // namespace nibble::models::jinja
