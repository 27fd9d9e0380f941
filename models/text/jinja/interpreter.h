// SPDX-License-Identifier: Apache-2.0
// Runs parsed templates. One object renders once.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/text/jinja/ast.h"
#include "models/text/jinja/template.h"
#include "models/text/jinja/value.h"

namespace nibble::models::jinja {

class Interpreter;

/// A call of a macro, function, filter (the input is args[0]), test or method (the object is args[0]).
struct Call {
  Interpreter& in;
  std::string_view name;
  std::vector<Value> args;
  std::vector<std::pair<std::string, Value>> named = {};

  /// One entry per name, null where nothing was given. Throws Error for more or other arguments, or when one of the
  /// first `needed` is missing.
  std::vector<const Value*> bind(std::initializer_list<std::string_view> names, size_t needed = 1) const;
};
using Builtin = Value (*)(Call& call);

struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string_view, Value>> variables;

  const Value* find(std::string_view name) const;
  void set(std::string_view name, Value value);
};
using ScopePtr = std::shared_ptr<Scope>;

class Interpreter {
 public:
  Interpreter(const Dict& variables, const RenderOptions& options);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  Rendered run(const Body& body);
  int line() const { return line_; }

  // What built-ins use.
  /// Throws Error when the budget of steps is used up; about 16 bytes or one small object cost a step.
  void spend(size_t steps);
  Value call(const Value& function, Call& call);
  Value call_filter(std::string_view name, Call& call);
  bool call_test(std::string_view name, Call& call);
  /// value.name
  Value attribute(const Value& value, std::string_view name);
  /// value[key]
  Value item(const Value& value, const Value& key);
  /// The elements a for would see; uses up iterators. Throws Error for what cannot be walked.
  std::vector<Value> elements(const Value& value);
  Value make_text(Text text);
  Value make_list(std::vector<Value> items, ListKind kind = ListKind::list);
  Value make_namespace(std::vector<std::pair<std::string, Value>> items);
  Value add(const Value& a, const Value& b);
  const RenderOptions& options() const { return options_; }

 private:
  enum class Flow { normal, stop, next };
  class Level;

  // statements: interpreter.cpp
  Flow run_body(const Body& body, const ScopePtr& scope);
  Flow run_statement(const Stmt& stmt, const ScopePtr& scope);
  Flow run_branches(const Stmt& stmt, const ScopePtr& scope);
  void run_loop(const Stmt& stmt, const ScopePtr& scope, std::vector<Value> items, int64_t depth);
  void run_set(const Stmt& stmt, const ScopePtr& scope);
  void run_call_block(const Stmt& stmt, const ScopePtr& scope);
  Flow run_with(const Stmt& stmt, const ScopePtr& scope);
  void run_generation(const Stmt& stmt, const ScopePtr& scope);
  Value make_macro(const Stmt& stmt, const ScopePtr& scope);
  Value run_macro(const Stmt& stmt, const ScopePtr& scope, Call& call);
  Text captured(const Body& body, const ScopePtr& scope);
  void assign(const Expr& target, Value value, const ScopePtr& scope);
  void write(const Text& text);

  // expressions: expressions.cpp
  Value eval(const Expr& expr, const ScopePtr& scope);
  Value eval_name(const Expr& expr, const ScopePtr& scope);
  Value eval_dict(const Expr& expr, const ScopePtr& scope);
  Value eval_slice(const Expr& expr, const ScopePtr& scope);
  Value eval_call(const Expr& expr, const ScopePtr& scope, const Value* caller = nullptr);
  Value eval_filter(const Expr& expr, const ScopePtr& scope);
  Value eval_test(const Expr& expr, const ScopePtr& scope);
  Value eval_compare(const Expr& expr, const ScopePtr& scope);
  Value eval_concat(const Expr& expr, const ScopePtr& scope);
  void eval_arguments(const Expr& expr, const ScopePtr& scope, Call& call);
  std::vector<Value> eval_all(const std::vector<ExprPtr>& exprs, const ScopePtr& scope);

  // operators.cpp
  Value binary(const std::string& op, const Value& a, const Value& b);
  Value multiply(const Value& a, const Value& b);
  Value power(const Value& a, const Value& b);
  Value negative(const Value& value);
  bool contains(const Value& where, const Value& what);
  Value slice(const Value& value, const Value& start, const Value& stop, const Value& step);

  const RenderOptions& options_;
  ScopePtr globals_, root_;
  uint64_t steps_left_;
  int line_ = 1, level_ = 0;
  Text output_;
  Text* out_ = &output_;
  const Value* block_body_ = nullptr;  ///< what a filter without input works on
  std::vector<TextRange> generation_;
  /// Macros hold scopes and scopes hold macros, namespaces may hold themselves: emptied at the end.
  std::vector<ScopePtr> kept_scopes_;
  std::vector<std::shared_ptr<Namespace>> kept_namespaces_;
};

/// Null for unknown names.
Builtin find_filter(std::string_view name);
Builtin find_test(std::string_view name);
/// What `value.name` is when it is a method of texts, lists or dicts; `value.name(x)` calls it with args (value, x).
Builtin find_method(const Value& value, std::string_view name);
/// range, dict, namespace, ...
void add_globals(Scope& scope);
/// "%s and %d" % values; str.format
Text format_percent(Interpreter& in, const Text& format, const Value& values);
Text format_braces(Call& call);

/// For built-ins: the value as a whole number or a text. Throw Error naming `what`.
int64_t whole(const Value& value, std::string_view what);
const Text& text_of(const Value& value, std::string_view what);

}  // namespace nibble::models::jinja
