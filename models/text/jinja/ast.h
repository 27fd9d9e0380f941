// SPDX-License-Identifier: Apache-2.0
// Parsed templates.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/text/jinja/value.h"

namespace nibble::models::jinja {

/// Levels of expressions or blocks inside each other that a template may have.
constexpr int max_source_depth = 150;

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Argument {
  enum class Kind { positional, named, star, double_star };
  Kind kind;
  std::string name;
  ExprPtr value;
};

struct Expr {
  enum class Kind {
    constant,     ///< value
    name,         ///< text
    list, tuple,  ///< children
    dict,         ///< children: key, value, key, value ...
    attribute,    ///< children[0] . text
    item,         ///< children[0] [ children[1] ]
    slice,        ///< children[0] [ children[1] : children[2] : children[3] ], null where left out
    call,         ///< children[0] ( arguments )
    filter,       ///< children[0] | text ( arguments ); a null child stands for the body of a block
    test,         ///< children[0] is text ( arguments )
    negative, positive, logical_not,
    binary,       ///< text: + - * / // % **
    logical_and, logical_or,
    compare,      ///< children[0] operators[0] children[1] operators[1] children[2] ...
    concat,       ///< children
    conditional,  ///< children[1] if children[0] else children[2], which may be null
  };
  Kind kind;
  int line;
  int depth = 1;
  std::string text;
  Value value;
  std::vector<ExprPtr> children;
  std::vector<std::string> operators;
  std::vector<Argument> arguments;
};

struct Stmt;
using Body = std::vector<Stmt>;

struct Parameter {
  std::string name;
  ExprPtr default_value;  ///< may be null
};

struct Branch {
  ExprPtr condition;  ///< null: else
  Body body;
};

struct Stmt {
  enum class Kind {
    data,          ///< text
    print,         ///< expr
    branches,      ///< if, elif, else
    loop,          ///< for target in expr if condition: body, otherwise
    set,           ///< target = expr
    set_block,     ///< target = body, through the filters of expr if there is one
    macro,         ///< text ( parameters ): body
    call_block,    ///< expr is the call; parameters: of its caller
    filter_block,  ///< expr over body
    with,          ///< targets[i] = values[i]: body
    generation,    ///< body is what the assistant wrote
    stop, next,    ///< break, continue
  };
  Kind kind;
  int line;
  std::string text;
  ExprPtr target, expr, condition;
  std::vector<Branch> branches;
  std::vector<Parameter> parameters;
  std::vector<ExprPtr> targets, values;
  Body body, otherwise;
  bool recursive = false;
  bool takes_more = false, takes_more_named = false;  ///< macro: its body reads varargs, kwargs
};

}  // namespace nibble::models::jinja
