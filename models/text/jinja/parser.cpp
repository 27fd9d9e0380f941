// SPDX-License-Identifier: Apache-2.0
#include "models/text/jinja/parser.h"

#include <algorithm>
#include <array>

#include "tensor/check.h"

namespace nibble::models::jinja {

Body parse(std::string_view source) { return Parser(tokenize(source)).whole(); }

Parser::Level::Level(Parser& parser) : parser_(parser) {
  // one level of source takes a few of these
  if (++parser_.level_ > 4 * max_source_depth) parser_.refuse("the template is nested too deeply");
}

void Parser::refuse(const std::string& what) const { fail("line ", now().line, ": ", what); }

std::string Parser::found() const {
  switch (now().kind) {
    case Token::Kind::print_end:
    case Token::Kind::block_end:
      return "the end of the tag";
    case Token::Kind::end:
      return "the end of the template";
    case Token::Kind::integer:
    case Token::Kind::real:
      return "a number";
    case Token::Kind::text:
      return "a text";
    default:
      return in_quotes(now().bytes);
  }
}

Token Parser::take() {
  Token token = now();
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool Parser::skip_op(std::string_view op) {
  const bool is = is_op(op);
  if (is) take();
  return is;
}

bool Parser::skip_name(std::string_view name) {
  const bool is = is_name(name);
  if (is) take();
  return is;
}

void Parser::expect_op(std::string_view op) {
  if (!skip_op(op)) refuse(message("expected '", op, "', found ", found()));
}

std::string Parser::expect_name() {
  if (now().kind != Token::Kind::name) refuse(message("expected a name, found ", found()));
  return take().bytes;
}

void Parser::expect(Token::Kind kind) {
  if (now().kind != kind) refuse(message("expected the end of the tag, found ", found()));
  take();
}

Body Parser::whole() {
  Body out = body({});
  if (now().kind != Token::Kind::end) refuse(message("unexpected ", found()));
  return out;
}

bool Parser::at_end_tag(std::initializer_list<std::string_view> ends) const {
  return now().kind == Token::Kind::block_begin && ahead().kind == Token::Kind::name &&
         std::find(ends.begin(), ends.end(), ahead().bytes) != ends.end();
}

/// Up to a tag named in `ends`, which is left with its "{%" taken; without ends up to the end of the template.
Body Parser::body(std::initializer_list<std::string_view> ends) {
  const Level level(*this);
  Body out;
  while (true) {
    if (now().kind == Token::Kind::end) {
      if (ends.size() > 0) refuse(message("the template ends inside a block; expected '", *(ends.end() - 1), "'"));
      return out;
    }
    if (at_end_tag(ends)) {
      take();
      return out;
    }
    if (now().kind == Token::Kind::data) {
      Stmt data = make(Stmt::Kind::data);
      data.text = take().bytes;
      out.push_back(std::move(data));
    } else if (now().kind == Token::Kind::print_begin) {
      take();
      Stmt print = make(Stmt::Kind::print);
      print.expr = tuple(true);
      if (now().kind != Token::Kind::print_end) refuse(message("expected the end of the tag, found ", found()));
      take();
      out.push_back(std::move(print));
    } else {
      take();  // block_begin: nothing else stands between tags
      statement(out);
    }
  }
}

Stmt Parser::make(Stmt::Kind kind) const {
  Stmt made;
  made.kind = kind;
  made.line = now().line;
  return made;
}

void Parser::end_block(std::string_view name) {
  if (!skip_name(name)) refuse(message("expected '", name, "', found ", found()));
  expect(Token::Kind::block_end);
}

void Parser::statement(Body& out) {
  const std::string& name = now().bytes;
  if (now().kind != Token::Kind::name) refuse(message("expected the name of a tag, found ", found()));
  if (name == "if") {
    out.push_back(if_statement());
  } else if (name == "for") {
    out.push_back(for_statement());
  } else if (name == "set") {
    out.push_back(set_statement());
  } else if (name == "macro") {
    out.push_back(macro_statement());
  } else if (name == "call") {
    out.push_back(call_statement());
  } else if (name == "filter") {
    out.push_back(filter_statement());
  } else if (name == "with") {
    out.push_back(with_statement());
  } else if (name == "generation") {
    out.push_back(generation_statement());
  } else if (name == "break" || name == "continue") {
    if (loops_ == 0) refuse(message("'", name, "' outside of a loop"));
    out.push_back(make(name == "break" ? Stmt::Kind::stop : Stmt::Kind::next));
    take();
    expect(Token::Kind::block_end);
  } else {
    refuse(message("unknown tag ", found()));
  }
}

Stmt Parser::if_statement() {
  Stmt out = make(Stmt::Kind::branches);
  take();
  while (true) {
    ExprPtr condition = tuple(false);
    expect(Token::Kind::block_end);
    Body then = body({"elif", "else", "endif"});
    out.branches.push_back({std::move(condition), std::move(then)});
    if (!skip_name("elif")) break;
  }
  if (skip_name("else")) {
    expect(Token::Kind::block_end);
    out.branches.push_back({nullptr, body({"endif"})});
  }
  end_block("endif");
  return out;
}

Stmt Parser::for_statement() {
  Stmt out = make(Stmt::Kind::loop);
  take();
  out.target = target();
  if (!skip_name("in")) refuse(message("expected 'in', found ", found()));
  out.expr = tuple(false, "recursive");
  if (skip_name("if")) out.condition = expression();
  out.recursive = skip_name("recursive");
  expect(Token::Kind::block_end);
  ++loops_;
  out.body = body({"else", "endfor"});
  --loops_;
  if (skip_name("else")) {
    expect(Token::Kind::block_end);
    out.otherwise = body({"endfor"});
  }
  end_block("endfor");
  return out;
}

/// A name, a member of a namespace, or a tuple of targets in parentheses.
ExprPtr Parser::one_target() {
  const Level level(*this);
  if (skip_op("(")) {
    ExprPtr made = target();
    expect_op(")");
    return made;
  }
  const std::string name = expect_name();
  constexpr std::array<std::string_view, 6> constants = {"true", "True", "false", "False", "none", "None"};
  if (std::count(constants.begin(), constants.end(), name) > 0) refuse(message("'", name, "' cannot be set"));
  ExprPtr made = node(Expr::Kind::name, {}, name);
  if (!skip_op(".")) return made;
  std::vector<ExprPtr> children;
  children.push_back(std::move(made));
  return node(Expr::Kind::attribute, std::move(children), expect_name());
}

ExprPtr Parser::target() {
  std::vector<ExprPtr> items;
  items.push_back(one_target());
  bool is_tuple = false;
  while (skip_op(",")) {
    is_tuple = true;
    if (is_name("in") || is_op("=") || is_op(")") || now().kind == Token::Kind::block_end) break;
    items.push_back(one_target());
  }
  if (!is_tuple) return std::move(items[0]);
  return node(Expr::Kind::tuple, std::move(items));
}

Stmt Parser::set_statement() {
  Stmt out = make(Stmt::Kind::set);
  take();
  out.target = target();
  if (skip_op("=")) {
    out.expr = tuple(true);
    expect(Token::Kind::block_end);
    return out;
  }
  out.kind = Stmt::Kind::set_block;
  while (skip_op("|")) out.expr = filter(std::move(out.expr));
  expect(Token::Kind::block_end);
  out.body = body({"endset"});
  end_block("endset");
  return out;
}

std::vector<Parameter> Parser::parameters() {
  std::vector<Parameter> out;
  expect_op("(");
  while (!is_op(")")) {
    if (!out.empty()) expect_op(",");
    if (is_op(")")) break;
    Parameter parameter{expect_name(), nullptr};
    if (skip_op("="))
      parameter.default_value = expression();
    else if (!out.empty() && out.back().default_value)
      refuse("a parameter without default follows one that has one");
    out.push_back(std::move(parameter));
  }
  expect_op(")");
  return out;
}

Stmt Parser::macro_statement() {
  Stmt out = make(Stmt::Kind::macro);
  take();
  out.text = expect_name();
  out.parameters = parameters();
  expect(Token::Kind::block_end);
  const int loops = std::exchange(loops_, 0);
  saw_varargs_ = saw_kwargs_ = false;
  out.body = body({"endmacro"});
  out.takes_more = saw_varargs_;
  out.takes_more_named = saw_kwargs_;
  loops_ = loops;
  end_block("endmacro");
  return out;
}

Stmt Parser::call_statement() {
  Stmt out = make(Stmt::Kind::call_block);
  take();
  if (is_op("(")) out.parameters = parameters();
  out.expr = expression();
  if (out.expr->kind != Expr::Kind::call) refuse("expected a call");
  expect(Token::Kind::block_end);
  const int loops = std::exchange(loops_, 0);
  out.body = body({"endcall"});
  loops_ = loops;
  end_block("endcall");
  return out;
}

Stmt Parser::filter_statement() {
  Stmt out = make(Stmt::Kind::filter_block);
  take();
  out.expr = filter(nullptr);
  while (skip_op("|")) out.expr = filter(std::move(out.expr));
  expect(Token::Kind::block_end);
  const int loops = std::exchange(loops_, 0);
  out.body = body({"endfilter"});
  loops_ = loops;
  end_block("endfilter");
  return out;
}

Stmt Parser::with_statement() {
  Stmt out = make(Stmt::Kind::with);
  take();
  while (now().kind != Token::Kind::block_end) {
    if (!out.targets.empty()) expect_op(",");
    out.targets.push_back(one_target());
    expect_op("=");
    out.values.push_back(expression());
  }
  expect(Token::Kind::block_end);
  out.body = body({"endwith"});
  end_block("endwith");
  return out;
}

Stmt Parser::generation_statement() {
  Stmt out = make(Stmt::Kind::generation);
  take();
  expect(Token::Kind::block_end);
  const int loops = std::exchange(loops_, 0);
  out.body = body({"endgeneration"});
  loops_ = loops;
  end_block("endgeneration");
  return out;
}

}  // namespace nibble::models::jinja
