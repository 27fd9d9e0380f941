// SPDX-License-Identifier: Apache-2.0
// Statements.
#include "models/text/jinja/interpreter.h"

#include <algorithm>

#include "models/text/jinja/level.h"
#include "models/text/jinja/loop.h"
#include "tensor/check.h"

namespace nibble::models::jinja {

const Value* Scope::find(std::string_view name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent.get())
    for (const auto& [known, value] : scope->variables)
      if (known == name) return &value;
  return nullptr;
}

void Scope::set(std::string_view name, Value value) {
  for (auto& [known, held] : variables)
    if (known == name) {
      held = std::move(value);
      return;
    }
  variables.emplace_back(name, std::move(value));
}

std::vector<const Value*> Call::bind(std::initializer_list<std::string_view> names, size_t needed) const {
  NIBBLE_CHECK(args.size() <= names.size(), name, ": ", args.size(), " arguments, but it takes at most ", names.size());
  std::vector<const Value*> out(names.size(), nullptr);
  for (size_t i = 0; i < args.size(); ++i) out[i] = &args[i];
  for (const auto& [key, value] : named) {
    const auto found = std::find(names.begin(), names.end(), key);
    NIBBLE_CHECK(found != names.end(), name, ": unknown argument '", key, "'");
    const Value*& slot = out[static_cast<size_t>(found - names.begin())];
    NIBBLE_CHECK(slot == nullptr, name, ": argument '", key, "' is given twice");
    slot = &value;
  }
  for (size_t i = 0; i < needed; ++i)
    NIBBLE_CHECK(out[i] != nullptr, name, ": argument '", *(names.begin() + i), "' is missing");
  return out;
}

Interpreter::Interpreter(const Dict& variables, const RenderOptions& options)
    : options_(options), globals_(std::make_shared<Scope>()), steps_left_(options.max_steps) {
  add_globals(*globals_);
  for (const auto& [key, value] : variables.items) globals_->set(text_of(key, "a variable's name").bytes, value);
  root_ = std::make_shared<Scope>();
  root_->parent = globals_;
}

Interpreter::~Interpreter() {
  for (const ScopePtr& scope : kept_scopes_) scope->variables.clear();
  for (const auto& space : kept_namespaces_) space->items.clear();
}

Rendered Interpreter::run(const Body& body) {
  run_body(body, root_);
  return {std::move(output_), std::move(generation_)};
}

void Interpreter::spend(size_t steps) {
  NIBBLE_CHECK(steps < steps_left_, "the template needs more than ", options_.max_steps, " steps");
  steps_left_ -= steps;
}

void Interpreter::write(const Text& text) {
  NIBBLE_CHECK(out_->bytes.size() + text.bytes.size() <= options_.max_output_bytes, "the output has more than ",
               options_.max_output_bytes, " bytes");
  spend(1 + text.bytes.size() / 16);
  append(*out_, text);
}

Interpreter::Flow Interpreter::run_body(const Body& body, const ScopePtr& scope) {
  for (const Stmt& stmt : body)
    if (const Flow flow = run_statement(stmt, scope); flow != Flow::normal) return flow;
  return Flow::normal;
}

Interpreter::Flow Interpreter::run_statement(const Stmt& stmt, const ScopePtr& scope) {
  const Level level(*this);
  line_ = stmt.line;
  spend(1);
  switch (stmt.kind) {
    case Stmt::Kind::data:
      write({stmt.text});
      break;
    case Stmt::Kind::print:
      write(str(eval(*stmt.expr, scope)));
      break;
    case Stmt::Kind::branches:
      return run_branches(stmt, scope);
    case Stmt::Kind::loop:
      run_loop(stmt, scope, elements(eval(*stmt.expr, scope)), 0);
      break;
    case Stmt::Kind::set:
    case Stmt::Kind::set_block:
      run_set(stmt, scope);
      break;
    case Stmt::Kind::macro:
      scope->set(stmt.text, make_macro(stmt, scope));
      break;
    case Stmt::Kind::call_block:
      run_call_block(stmt, scope);
      break;
    case Stmt::Kind::filter_block: {
      const Value inner = captured(stmt.body, scope);
      const Value* outer = std::exchange(block_body_, &inner);
      const Value result = eval(*stmt.expr, scope);
      block_body_ = outer;
      write(str(result));
      break;
    }
    case Stmt::Kind::with:
      return run_with(stmt, scope);
    case Stmt::Kind::generation:
      run_generation(stmt, scope);
      break;
    case Stmt::Kind::stop:
      return Flow::stop;
    case Stmt::Kind::next:
      return Flow::next;
  }
  return Flow::normal;
}

Interpreter::Flow Interpreter::run_branches(const Stmt& stmt, const ScopePtr& scope) {
  for (const Branch& branch : stmt.branches)
    if (!branch.condition || truth(eval(*branch.condition, scope))) return run_body(branch.body, scope);
  return Flow::normal;
}

void Interpreter::run_loop(const Stmt& stmt, const ScopePtr& scope, std::vector<Value> items, int64_t depth) {
  const Level level(*this);
  auto loop = std::make_shared<Loop>();
  loop->items = std::move(items);
  loop->depth0 = depth;
  if (stmt.condition)
    loop->accepts = [&](const Value& candidate) {
      auto inner = std::make_shared<Scope>();
      inner->parent = scope;
      assign(*stmt.target, candidate, inner);
      return truth(eval(*stmt.condition, inner));
    };
  if (stmt.recursive)
    loop->recurse = [this, &stmt, scope, depth](Call& call) {
      Text text;
      Text* outer = std::exchange(out_, &text);
      run_loop(stmt, scope, elements(*call.bind({"iterable"})[0]), depth + 1);
      out_ = outer;
      return make_text(std::move(text));
    };
  struct End {
    Loop& loop;
    ~End() {  // the functions refer to this call; what changed() was given may hold the loop
      loop.over = true;
      loop.accepts = nullptr;
      loop.recurse = nullptr;
      loop.changed.reset();
    }
  } end{*loop};
  bool any = false;
  while (loop->advance()) {
    any = true;
    spend(1);
    auto inner = std::make_shared<Scope>();
    inner->parent = scope;
    inner->set("loop", loop);
    assign(*stmt.target, *loop->current, inner);
    if (run_body(stmt.body, inner) == Flow::stop) break;
  }
  if (!any) {
    auto inner = std::make_shared<Scope>();
    inner->parent = scope;
    run_body(stmt.otherwise, inner);
  }
}

void Interpreter::assign(const Expr& target, Value value, const ScopePtr& scope) {
  if (target.kind == Expr::Kind::name) {
    scope->set(target.text, std::move(value));
    return;
  }
  if (target.kind == Expr::Kind::attribute) {
    const Value space = eval(*target.children[0], scope);
    NIBBLE_CHECK(space.is(Value::Kind::space), "cannot set '", target.text, "' of a ", type_name(space),
                 "; only namespaces have members to set");
    NIBBLE_CHECK(!target.text.starts_with('_'), "cannot set '", target.text, "': it begins with an underscore");
    for (auto& [known, held] : space.space().items)
      if (known == target.text) {
        held = std::move(value);
        return;
      }
    space.space().items.emplace_back(target.text, std::move(value));
    return;
  }
  const std::vector<Value> items = elements(value);
  NIBBLE_CHECK(items.size() == target.children.size(), "expected ", target.children.size(), " values to unpack, found ",
               items.size());
  for (size_t i = 0; i < items.size(); ++i) assign(*target.children[i], items[i], scope);
}

Text Interpreter::captured(const Body& body, const ScopePtr& scope) {
  auto inner = std::make_shared<Scope>();
  inner->parent = scope;
  Text text;
  Text* outer = std::exchange(out_, &text);
  run_body(body, inner);
  out_ = outer;
  return text;
}

void Interpreter::run_set(const Stmt& stmt, const ScopePtr& scope) {
  if (stmt.kind == Stmt::Kind::set) {
    assign(*stmt.target, eval(*stmt.expr, scope), scope);
    return;
  }
  Value value = captured(stmt.body, scope);
  if (stmt.expr) {
    const Value* outer = std::exchange(block_body_, &value);
    Value result = eval(*stmt.expr, scope);
    block_body_ = outer;
    value = std::move(result);
  }
  assign(*stmt.target, std::move(value), scope);
}

Value Interpreter::make_macro(const Stmt& stmt, const ScopePtr& scope) {
  if (kept_scopes_.empty() || kept_scopes_.back() != scope) kept_scopes_.push_back(scope);
  spend(4);
  return function_value(stmt.text, [this, &stmt, scope](Call& call) { return run_macro(stmt, scope, call); });
}

Value Interpreter::run_macro(const Stmt& stmt, const ScopePtr& scope, Call& call) {
  const Level level(*this);
  const std::string_view name = stmt.text.empty() ? "caller" : std::string_view(stmt.text);
  auto inner = std::make_shared<Scope>();
  inner->parent = scope;
  const auto& parameters = stmt.parameters;
  std::vector<std::pair<std::string, Value>> more = std::move(call.named);
  const auto named = [&](std::string_view wanted) {
    return std::find_if(more.begin(), more.end(), [&](const auto& item) { return item.first == wanted; });
  };
  for (size_t i = 0; i < parameters.size(); ++i) {
    const auto found = named(parameters[i].name);
    Value value = undefined_value(message("parameter '", parameters[i].name, "' was not provided"));
    if (i < call.args.size()) {
      NIBBLE_CHECK(found == more.end(), name, ": argument '", parameters[i].name, "' is given twice");
      value = call.args[i];
    } else if (found != more.end()) {
      value = std::move(found->second);
      more.erase(found);
    } else if (parameters[i].default_value) {
      value = eval(*parameters[i].default_value, inner);
    }
    inner->set(parameters[i].name, std::move(value));
  }
  if (const auto caller = named("caller"); caller != more.end()) {
    inner->set("caller", std::move(caller->second));
    more.erase(caller);
  } else if (!stmt.text.empty()) {
    inner->set("caller", undefined_value("no caller is defined"));
  }
  const size_t taken = std::min(parameters.size(), call.args.size());
  NIBBLE_CHECK(stmt.takes_more || taken == call.args.size(), "macro '", name, "' takes at most ", parameters.size(),
               " arguments, found ", call.args.size());
  NIBBLE_CHECK(stmt.takes_more_named || more.empty(), "macro '", name, "' has no parameter '",
               more.empty() ? "" : more[0].first, "'");
  const auto rest = call.args.begin() + static_cast<std::ptrdiff_t>(taken);
  if (stmt.takes_more) inner->set("varargs", make_list({rest, call.args.end()}, ListKind::tuple));
  if (stmt.takes_more_named) inner->set("kwargs", dict_value(std::move(more)));
  Text text;
  Text* outer = std::exchange(out_, &text);
  run_body(stmt.body, inner);
  out_ = outer;
  return make_text(std::move(text));
}

void Interpreter::run_call_block(const Stmt& stmt, const ScopePtr& scope) {
  const Value caller = make_macro(stmt, scope);
  write(str(eval_call(*stmt.expr, scope, &caller)));
}

Interpreter::Flow Interpreter::run_with(const Stmt& stmt, const ScopePtr& scope) {
  auto inner = std::make_shared<Scope>();
  inner->parent = scope;
  for (size_t i = 0; i < stmt.targets.size(); ++i) assign(*stmt.targets[i], eval(*stmt.values[i], scope), inner);
  return run_body(stmt.body, inner);
}

void Interpreter::run_generation(const Stmt& stmt, const ScopePtr& scope) {
  const Text text = captured(stmt.body, scope);
  const size_t begin = out_->bytes.size();
  write(text);
  if (out_ == &output_) generation_.push_back({begin, out_->bytes.size()});
}

}  // namespace nibble::models::jinja
