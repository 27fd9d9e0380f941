// SPDX-License-Identifier: Apache-2.0
// Tokens to statements and expressions, by Jinja's grammar. Blocks for inheritance and inclusion do not exist here.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "models/text/jinja/ast.h"
#include "models/text/jinja/lexer.h"

namespace nibble::models::jinja {

/// Throws Error naming the line.
Body parse(std::string_view source);

/// Internal to parse(): expressions in parser_expressions.cpp, statements in parser.cpp.
class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}
  Body whole();

 private:
  // statements
  Body body(std::initializer_list<std::string_view> ends);
  bool at_end_tag(std::initializer_list<std::string_view> ends) const;
  void statement(Body& out);
  void end_block(std::string_view name);
  Stmt make(Stmt::Kind kind) const;
  Stmt if_statement();
  Stmt for_statement();
  Stmt set_statement();
  Stmt macro_statement();
  Stmt call_statement();
  Stmt filter_statement();
  Stmt with_statement();
  Stmt generation_statement();
  std::vector<Parameter> parameters();
  ExprPtr target();
  ExprPtr one_target();

  // expressions
  ExprPtr expression(bool conditionals = true);
  ExprPtr tuple(bool conditionals, std::string_view end_name = "", bool explicit_parentheses = false);
  bool tuple_ends(std::string_view end_name) const;
  ExprPtr conditional();
  ExprPtr disjunction();
  ExprPtr conjunction();
  ExprPtr negation();
  ExprPtr comparison();
  ExprPtr sum();
  ExprPtr concatenation();
  ExprPtr product();
  ExprPtr power();
  ExprPtr unary(bool with_filters = true);
  ExprPtr primary();
  ExprPtr literal_list();
  ExprPtr literal_dict();
  ExprPtr postfix(ExprPtr node);
  ExprPtr subscript(ExprPtr node);
  ExprPtr filters_and_tests(ExprPtr node);
  ExprPtr filter(ExprPtr node);
  ExprPtr test(ExprPtr node);
  std::vector<Argument> arguments();
  ExprPtr binary(Expr::Kind kind, std::string op, ExprPtr left, ExprPtr right);
  ExprPtr node(Expr::Kind kind, std::vector<ExprPtr> children = {}, std::string text = "");
  ExprPtr deepened(ExprPtr made) const;

  // tokens
  const Token& now() const { return tokens_[at_]; }
  const Token& ahead(size_t count = 1) const { return tokens_[std::min(at_ + count, tokens_.size() - 1)]; }
  Token take();
  bool is_op(std::string_view op) const { return now().kind == Token::Kind::op && now().bytes == op; }
  bool is_name(std::string_view name) const { return now().kind == Token::Kind::name && now().bytes == name; }
  bool skip_op(std::string_view op);
  bool skip_name(std::string_view name);
  void expect_op(std::string_view op);
  std::string expect_name();
  void expect(Token::Kind kind);
  [[noreturn]] void refuse(const std::string& what) const;
  std::string found() const;

  /// Counts levels of recursion.
  class Level {
   public:
    explicit Level(Parser& parser);
    ~Level() { --parser_.level_; }

   private:
    Parser& parser_;
  };

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int level_ = 0, loops_ = 0;
  bool saw_varargs_ = false, saw_kwargs_ = false;
};

}  // namespace nibble::models::jinja
