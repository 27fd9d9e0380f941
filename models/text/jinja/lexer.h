// SPDX-License-Identifier: Apache-2.0
// Template source to tokens, with Jinja's white-space rules for trim_blocks and lstrip_blocks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::models::jinja {

struct Token {
  enum class Kind {
    data,            ///< text between tags
    print_begin, print_end, block_begin, block_end,
    name, text, integer, real,
    op,              ///< one of + - * / // % ** ~ ( ) [ ] { } == != < <= > >= = . , : |
    end
  };
  Kind kind;
  int line;
  std::string bytes;  ///< names, operators, data, and texts without quotes and escapes
  int64_t integer_value = 0;
  double real_value = 0;
};

/// Ends with one `end` token. Throws Error naming the line.
std::vector<Token> tokenize(std::string_view source);

}  // namespace nibble::models::jinja
