// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include "models/text/jinja/parser.h"
#include "tensor/check.h"

namespace nibble::models::jinja {

ExprPtr Parser::node(Expr::Kind kind, std::vector<ExprPtr> children, std::string text) {
  auto made = std::make_unique<Expr>();
  made->kind = kind;
  made->line = now().line;
  made->text = std::move(text);
  made->children = std::move(children);
  return deepened(std::move(made));
}

ExprPtr Parser::deepened(ExprPtr made) const {
  for (const ExprPtr& child : made->children)
    if (child) made->depth = std::max(made->depth, child->depth + 1);
  for (const Argument& argument : made->arguments) made->depth = std::max(made->depth, argument.value->depth + 1);
  if (made->depth > max_source_depth) refuse(message("an expression is nested more than ", max_source_depth, " deep"));
  return made;
}

namespace {
std::vector<ExprPtr> all(ExprPtr a, ExprPtr b = nullptr) {
  std::vector<ExprPtr> out;
  out.push_back(std::move(a));
  if (b) out.push_back(std::move(b));
  return out;
}
}  // namespace

ExprPtr Parser::binary(Expr::Kind kind, std::string op, ExprPtr left, ExprPtr right) {
  return node(kind, all(std::move(left), std::move(right)), std::move(op));
}

ExprPtr Parser::expression(bool conditionals) {
  const Level level(*this);
  return conditionals ? conditional() : disjunction();
}

bool Parser::tuple_ends(std::string_view end_name) const {
  return now().kind == Token::Kind::print_end || now().kind == Token::Kind::block_end || is_op(")") ||
         (!end_name.empty() && is_name(end_name));
}

ExprPtr Parser::tuple(bool conditionals, std::string_view end_name, bool explicit_parentheses) {
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  while (true) {
    if (!items.empty()) {
      if (!skip_op(",")) break;
      is_tuple = true;
    }
    if (tuple_ends(end_name)) break;
    items.push_back(expression(conditionals));
  }
  if (!is_tuple && items.size() == 1) return std::move(items[0]);
  if (items.empty() && !explicit_parentheses) refuse(message("expected an expression, found ", found()));
  return node(Expr::Kind::tuple, std::move(items));
}

ExprPtr Parser::conditional() {
  ExprPtr value = disjunction();
  while (skip_name("if")) {
    std::vector<ExprPtr> children;
    children.push_back(disjunction());
    children.push_back(std::move(value));
    children.push_back(skip_name("else") ? expression() : nullptr);
    value = node(Expr::Kind::conditional, std::move(children));
  }
  return value;
}

ExprPtr Parser::disjunction() {
  ExprPtr left = conjunction();
  while (skip_name("or")) left = binary(Expr::Kind::logical_or, "or", std::move(left), conjunction());
  return left;
}

ExprPtr Parser::conjunction() {
  ExprPtr left = negation();
  while (skip_name("and")) left = binary(Expr::Kind::logical_and, "and", std::move(left), negation());
  return left;
}

ExprPtr Parser::negation() {
  const Level level(*this);
  if (skip_name("not")) return node(Expr::Kind::logical_not, all(negation()));
  return comparison();
}

ExprPtr Parser::comparison() {
  constexpr std::array<std::string_view, 6> known = {"==", "!=", "<", "<=", ">", ">="};
  std::vector<ExprPtr> children = all(sum());
  std::vector<std::string> operators;
  while (true) {
    const bool op = now().kind == Token::Kind::op && std::count(known.begin(), known.end(), now().bytes) > 0;
    if (op) {
      operators.push_back(take().bytes);
    } else if (skip_name("in")) {
      operators.emplace_back("in");
    } else if (is_name("not") && ahead().kind == Token::Kind::name && ahead().bytes == "in") {
      take();
      take();
      operators.emplace_back("not in");
    } else {
      break;
    }
    children.push_back(sum());
  }
  if (operators.empty()) return std::move(children[0]);
  ExprPtr made = node(Expr::Kind::compare, std::move(children));
  made->operators = std::move(operators);
  return made;
}

ExprPtr Parser::sum() {
  ExprPtr left = concatenation();
  while (is_op("+") || is_op("-")) {
    std::string op = take().bytes;
    left = binary(Expr::Kind::binary, std::move(op), std::move(left), concatenation());
  }
  return left;
}

ExprPtr Parser::concatenation() {
  std::vector<ExprPtr> children = all(product());
  while (skip_op("~")) children.push_back(product());
  if (children.size() == 1) return std::move(children[0]);
  return node(Expr::Kind::concat, std::move(children));
}

ExprPtr Parser::product() {
  ExprPtr left = power();
  while (is_op("*") || is_op("/") || is_op("//") || is_op("%")) {
    std::string op = take().bytes;
    left = binary(Expr::Kind::binary, std::move(op), std::move(left), power());
  }
  return left;
}

ExprPtr Parser::power() {
  ExprPtr left = unary();
  while (skip_op("**")) left = binary(Expr::Kind::binary, "**", std::move(left), unary());
  return left;
}

ExprPtr Parser::unary(bool with_filters) {
  const Level level(*this);
  ExprPtr made;
  if (skip_op("-"))
    made = node(Expr::Kind::negative, all(unary(false)));
  else if (skip_op("+"))
    made = node(Expr::Kind::positive, all(unary(false)));
  else
    made = primary();
  made = postfix(std::move(made));
  return with_filters ? filters_and_tests(std::move(made)) : std::move(made);
}

ExprPtr Parser::primary() {
  ExprPtr made = node(Expr::Kind::constant);
  switch (now().kind) {
    case Token::Kind::name: {
      const std::string name = take().bytes;
      if (name == "true" || name == "True" || name == "false" || name == "False")
        made->value = name == "true" || name == "True";
      else if (name == "none" || name == "None")
        made->value = None{};
      else
        made->kind = Expr::Kind::name;
      saw_varargs_ |= name == "varargs";
      saw_kwargs_ |= name == "kwargs";
      made->text = name;
      return made;
    }
    case Token::Kind::text: {
      std::string bytes;
      while (now().kind == Token::Kind::text) bytes += take().bytes;
      made->value = Value(std::move(bytes));
      return made;
    }
    case Token::Kind::integer:
      made->value = take().integer_value;
      return made;
    case Token::Kind::real:
      made->value = take().real_value;
      return made;
    default:
      break;
  }
  if (skip_op("(")) {
    made = tuple(true, "", true);
    expect_op(")");
    return made;
  }
  if (is_op("[")) return literal_list();
  if (is_op("{")) return literal_dict();
  refuse(message("expected an expression, found ", found()));
}

ExprPtr Parser::literal_list() {
  expect_op("[");
  std::vector<ExprPtr> items;
  while (!is_op("]")) {
    if (!items.empty()) expect_op(",");
    if (is_op("]")) break;
    items.push_back(expression());
  }
  expect_op("]");
  return node(Expr::Kind::list, std::move(items));
}

ExprPtr Parser::literal_dict() {
  expect_op("{");
  std::vector<ExprPtr> items;
  while (!is_op("}")) {
    if (!items.empty()) expect_op(",");
    if (is_op("}")) break;
    items.push_back(expression());
    expect_op(":");
    items.push_back(expression());
  }
  expect_op("}");
  return node(Expr::Kind::dict, std::move(items));
}

ExprPtr Parser::postfix(ExprPtr made) {
  while (true) {
    if (is_op(".") || is_op("[")) {
      made = subscript(std::move(made));
    } else if (is_op("(")) {
      made = node(Expr::Kind::call, all(std::move(made)));
      made->arguments = arguments();
      made = deepened(std::move(made));
    } else {
      return made;
    }
  }
}

ExprPtr Parser::subscript(ExprPtr made) {
  if (skip_op(".")) {
    if (now().kind == Token::Kind::name) return node(Expr::Kind::attribute, all(std::move(made)), take().bytes);
    if (now().kind != Token::Kind::integer) refuse(message("expected a name after '.', found ", found()));
    ExprPtr index = node(Expr::Kind::constant);
    index->value = take().integer_value;
    return node(Expr::Kind::item, all(std::move(made), std::move(index)));
  }
  expect_op("[");
  std::vector<ExprPtr> bounds(4);
  bounds[0] = std::move(made);
  const auto bound = [&](size_t i) {
    if (!is_op(":") && !is_op("]")) bounds[i] = expression();
  };
  bound(1);
  if (!is_op(":")) {
    if (!bounds[1]) refuse(message("expected an index, found ", found()));
    expect_op("]");
    return node(Expr::Kind::item, all(std::move(bounds[0]), std::move(bounds[1])));
  }
  expect_op(":");
  bound(2);
  if (skip_op(":")) bound(3);
  expect_op("]");
  return node(Expr::Kind::slice, std::move(bounds));
}

ExprPtr Parser::filters_and_tests(ExprPtr made) {
  while (true) {
    if (skip_op("|")) {
      made = filter(std::move(made));
    } else if (is_name("is")) {
      made = test(std::move(made));
    } else if (is_op("(")) {
      made = node(Expr::Kind::call, all(std::move(made)));
      made->arguments = arguments();
      made = deepened(std::move(made));
    } else {
      return made;
    }
  }
}

ExprPtr Parser::filter(ExprPtr input) {
  std::string name = expect_name();
  while (skip_op(".")) name.append(".").append(expect_name());
  std::vector<ExprPtr> children;
  children.push_back(std::move(input));
  ExprPtr made = node(Expr::Kind::filter, std::move(children), std::move(name));
  if (is_op("(")) made->arguments = arguments();
  return deepened(std::move(made));
}

ExprPtr Parser::test(ExprPtr input) {
  take();  // is
  const bool negated = skip_name("not");
  ExprPtr made = node(Expr::Kind::test, all(std::move(input)), expect_name());
  using Kind = Token::Kind;
  const Kind kind = now().kind;
  const bool value = kind == Kind::name || kind == Kind::text || kind == Kind::integer || kind == Kind::real ||
                     is_op("[") || is_op("{");
  if (is_op("(")) {
    made->arguments = arguments();
  } else if (value && !is_name("else") && !is_name("or") && !is_name("and")) {
    if (is_name("is")) refuse("tests cannot be chained with 'is'");
    // `x is defined if y` and the like: a keyword is no argument
    if (!is_name("if") && !is_name("in") && !is_name("not"))
      made->arguments.push_back({Argument::Kind::positional, "", postfix(primary())});
  }
  made = deepened(std::move(made));
  return negated ? node(Expr::Kind::logical_not, all(std::move(made))) : std::move(made);
}

std::vector<Argument> Parser::arguments() {
  const Level level(*this);
  expect_op("(");
  std::vector<Argument> out;
  Argument::Kind latest = Argument::Kind::positional;
  while (!is_op(")")) {
    if (!out.empty()) expect_op(",");
    if (is_op(")")) break;
    Argument argument{Argument::Kind::positional, "", nullptr};
    if (skip_op("*")) {
      argument.kind = Argument::Kind::star;
    } else if (skip_op("**")) {
      argument.kind = Argument::Kind::double_star;
    } else if (now().kind == Token::Kind::name && ahead().kind == Token::Kind::op && ahead().bytes == "=") {
      argument.kind = Argument::Kind::named;
      argument.name = take().bytes;
      take();
    }
    if (argument.kind < latest || (argument.kind == latest && latest >= Argument::Kind::star))
      refuse("arguments stand in the order: values, names, *list, **dict");
    latest = argument.kind;
    argument.value = expression();
    out.push_back(std::move(argument));
  }
  expect_op(")");
  return out;
}

}  // namespace nibble::models::jinja
