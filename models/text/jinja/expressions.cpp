// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "models/text/jinja/interpreter.h"
#include "models/text/jinja/level.h"
#include "models/text/jinja/loop.h"
#include "tensor/check.h"

namespace nibble::models::jinja {

int64_t whole(const Value& value, std::string_view what) {
  need_defined(value);
  NIBBLE_CHECK(value.is_integral(), what, ": expected a whole number, found a ", type_name(value));
  return value.integer();
}

const Text& text_of(const Value& value, std::string_view what) {
  need_defined(value);
  NIBBLE_CHECK(value.is(Value::Kind::text), what, ": expected a text, found a ", type_name(value));
  return value.text();
}

Value Interpreter::make_text(Text text) {
  NIBBLE_CHECK(text.bytes.size() <= options_.max_output_bytes, "a text has more than ", options_.max_output_bytes,
               " bytes");
  spend(1 + text.bytes.size() / 16);
  return Value(std::move(text));
}

Value Interpreter::make_list(std::vector<Value> items, ListKind kind) {
  spend(1 + items.size());
  return list_value(std::move(items), kind);
}

Value Interpreter::make_namespace(std::vector<std::pair<std::string, Value>> items) {
  spend(4 + items.size());
  for (const auto& [name, value] : items)
    NIBBLE_CHECK(!name.starts_with('_'), "namespace: '", name, "' begins with an underscore");
  auto space = std::make_shared<Namespace>();
  space->items = std::move(items);
  kept_namespaces_.push_back(space);
  return space;
}

std::vector<Value> Interpreter::elements(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::undefined:
      return {};
    case Value::Kind::list:
      spend(1 + value.list().items.size());
      if (value.list().kind == ListKind::iterator) return std::exchange(value.list().items, {});
      return value.list().items;
    case Value::Kind::dict: {
      std::vector<Value> keys;
      spend(1 + value.dict().items.size());
      for (const auto& [key, held] : value.dict().items) keys.push_back(key);
      return keys;
    }
    case Value::Kind::text: {
      std::vector<Value> out;
      const Text& text = value.text();
      for (size_t at = 0, length; at < text.bytes.size(); at += length) {
        length = char_length(text.bytes, at);
        out.push_back(
            make_text(text.plain.empty() ? Text{text.bytes.substr(at, length)} : part(text, at, at + length)));
      }
      return out;
    }
    default:
      fail("a ", type_name(value), " cannot be walked through");
  }
}

Value Interpreter::call(const Value& function, Call& call) {
  const Level level(*this);
  spend(1);
  if (function.is(Value::Kind::loop) && function.loop().recurse) {
    const auto recurse = function.loop().recurse;
    return recurse(call);
  }
  need_defined(function);
  NIBBLE_CHECK(function.is(Value::Kind::function), "a ", type_name(function), " cannot be called");
  return function.function().body(call);
}

Value Interpreter::call_filter(std::string_view name, Call& call) {
  const Level level(*this);
  spend(1);
  const Builtin filter = find_filter(name);
  NIBBLE_CHECK(filter != nullptr, "no filter is named '", name, "'");
  return filter(call);
}

bool Interpreter::call_test(std::string_view name, Call& call) {
  const Level level(*this);
  spend(1);
  const Builtin test = find_test(name);
  NIBBLE_CHECK(test != nullptr, "no test is named '", name, "'");
  return truth(test(call));
}

std::vector<Value> Interpreter::eval_all(const std::vector<ExprPtr>& exprs, const ScopePtr& scope) {
  std::vector<Value> out;
  out.reserve(exprs.size());
  for (const ExprPtr& expr : exprs) out.push_back(expr ? eval(*expr, scope) : Value(None{}));
  return out;
}

Value Interpreter::eval(const Expr& expr, const ScopePtr& scope) {
  const Level level(*this);
  line_ = expr.line;
  spend(1);
  const auto child = [&](size_t i) { return eval(*expr.children[i], scope); };
  switch (expr.kind) {
    case Expr::Kind::constant:
      return expr.value;
    case Expr::Kind::name:
      return eval_name(expr, scope);
    case Expr::Kind::list:
      return make_list(eval_all(expr.children, scope));
    case Expr::Kind::tuple:
      return make_list(eval_all(expr.children, scope), ListKind::tuple);
    case Expr::Kind::dict:
      return eval_dict(expr, scope);
    case Expr::Kind::attribute:
      return attribute(child(0), expr.text);
    case Expr::Kind::item: {
      const Value object = child(0);
      return item(object, child(1));
    }
    case Expr::Kind::slice:
      return eval_slice(expr, scope);
    case Expr::Kind::call:
      return eval_call(expr, scope);
    case Expr::Kind::filter:
      return eval_filter(expr, scope);
    case Expr::Kind::test:
      return eval_test(expr, scope);
    case Expr::Kind::negative:
      return negative(child(0));
    case Expr::Kind::positive: {
      const Value value = child(0);
      need_defined(value);
      NIBBLE_CHECK(value.is_number(), "'+' does not work on a ", type_name(value));
      return value;
    }
    case Expr::Kind::logical_not:
      return !truth(child(0));
    case Expr::Kind::binary: {
      const Value left = child(0), right = child(1);
      line_ = expr.line;
      return binary(expr.text, left, right);
    }
    case Expr::Kind::logical_and: {
      const Value left = child(0);
      return truth(left) ? child(1) : left;
    }
    case Expr::Kind::logical_or: {
      const Value left = child(0);
      return truth(left) ? left : child(1);
    }
    case Expr::Kind::compare:
      return eval_compare(expr, scope);
    case Expr::Kind::concat:
      return eval_concat(expr, scope);
    case Expr::Kind::conditional:
      if (truth(child(0))) return child(1);
      if (expr.children[2]) return child(2);
      return undefined_value("the condition of an inline if without else was false");
  }
  return {};
}

Value Interpreter::eval_name(const Expr& expr, const ScopePtr& scope) {
  if (const Value* found = scope->find(expr.text)) return *found;
  return undefined_value(message("'", expr.text, "' is undefined"));
}

Value Interpreter::eval_dict(const Expr& expr, const ScopePtr& scope) {
  auto dict = std::make_shared<Dict>();
  for (size_t i = 0; i < expr.children.size(); i += 2) {
    spend(4);
    const Value key = eval(*expr.children[i], scope);
    dict->set(key, eval(*expr.children[i + 1], scope));
  }
  return dict;
}

Value Interpreter::eval_slice(const Expr& expr, const ScopePtr& scope) {
  const std::vector<Value> all = eval_all(expr.children, scope);
  line_ = expr.line;
  return slice(all[0], all[1], all[2], all[3]);
}

void Interpreter::eval_arguments(const Expr& expr, const ScopePtr& scope, Call& call) {
  for (const Argument& argument : expr.arguments) {
    Value value = eval(*argument.value, scope);
    switch (argument.kind) {
      case Argument::Kind::positional:
        call.args.push_back(std::move(value));
        break;
      case Argument::Kind::named:
        call.named.emplace_back(argument.name, std::move(value));
        break;
      case Argument::Kind::star:
        for (const Value& one : elements(value)) call.args.push_back(one);
        break;
      case Argument::Kind::double_star:
        need_defined(value);
        NIBBLE_CHECK(value.is(Value::Kind::dict), "'**' needs a dict, found a ", type_name(value));
        for (const auto& [key, held] : value.dict().items)
          call.named.emplace_back(text_of(key, "an argument's name").bytes, held);
        break;
    }
  }
  line_ = expr.line;
}

Value Interpreter::eval_call(const Expr& expr, const ScopePtr& scope, const Value* caller) {
  const Expr& callee = *expr.children[0];
  std::string name = callee.text;
  // A method is called at once, without an object that binds it.
  if (callee.kind == Expr::Kind::attribute && caller == nullptr) {
    const Value object = eval(*callee.children[0], scope);
    if (const Builtin method = find_method(object, callee.text)) {
      Call call{*this, name, {object}};
      eval_arguments(expr, scope, call);
      spend(1);
      if (object.is(Value::Kind::text)) spend(object.text().bytes.size() / 64);
      return method(call);
    }
    const Value function = attribute(object, callee.text);
    Call call{*this, name, {}};
    eval_arguments(expr, scope, call);
    return this->call(function, call);
  }
  const Value function = eval(callee, scope);
  Call call{*this, name, {}};
  eval_arguments(expr, scope, call);
  if (caller != nullptr) call.named.emplace_back("caller", *caller);
  return this->call(function, call);
}

Value Interpreter::eval_filter(const Expr& expr, const ScopePtr& scope) {
  Call call{*this, expr.text, {}};
  if (expr.children[0])
    call.args.push_back(eval(*expr.children[0], scope));
  else if (block_body_ != nullptr)
    call.args.push_back(*block_body_);
  if (call.args[0].is(Value::Kind::text)) spend(call.args[0].text().bytes.size() / 64);
  eval_arguments(expr, scope, call);
  return call_filter(expr.text, call);
}

Value Interpreter::eval_test(const Expr& expr, const ScopePtr& scope) {
  Call call{*this, expr.text, {eval(*expr.children[0], scope)}};
  eval_arguments(expr, scope, call);
  return call_test(expr.text, call);
}

Value Interpreter::eval_compare(const Expr& expr, const ScopePtr& scope) {
  Value left = eval(*expr.children[0], scope);
  for (size_t i = 0; i < expr.operators.size(); ++i) {
    Value right = eval(*expr.children[i + 1], scope);
    const std::string& op = expr.operators[i];
    line_ = expr.line;
    bool holds;
    if (op == "==" || op == "!=")
      holds = equal(left, right) == (op == "==");
    else if (op == "in" || op == "not in")
      holds = contains(right, left) == (op == "in");
    else if (op == "<" || op == ">=")
      holds = op == "<" ? less(left, right) : less(right, left) || equal(left, right);
    else
      holds = op == ">" ? less(right, left) : less(left, right) || equal(left, right);
    if (!holds) return false;
    left = std::move(right);
  }
  return true;
}

Value Interpreter::eval_concat(const Expr& expr, const ScopePtr& scope) {
  Text out;
  for (const ExprPtr& child : expr.children) append(out, str(eval(*child, scope)));
  line_ = expr.line;
  return make_text(std::move(out));
}

}  // namespace nibble::models::jinja
