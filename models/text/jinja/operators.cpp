// SPDX-License-Identifier: Apache-2.0
// Arithmetic, membership, attributes, items and slices, with Python's rules.
#include <algorithm>
#include <cmath>

#include "models/text/jinja/interpreter.h"
#include "models/text/jinja/loop.h"
#include "tensor/check.h"

namespace nibble::models::jinja {

namespace {

using Kind = Value::Kind;

[[noreturn]] void no_operator(std::string_view op, const Value& a, const Value& b) {
  need_defined(a);
  need_defined(b);
  fail("'", op, "' does not work on a ", type_name(a), " and a ", type_name(b));
}

template <typename Overflows>
int64_t checked(int64_t a, int64_t b, const Overflows& overflows) {
  int64_t out = 0;
  NIBBLE_CHECK(!overflows(a, b, &out), "a number is out of range");
  return out;
}

int64_t floor_divide(int64_t a, int64_t b) {
  NIBBLE_CHECK(a != INT64_MIN || b != -1, "a number is out of range");
  const int64_t quotient = a / b;
  return a % b != 0 && (a % b < 0) != (b < 0) ? quotient - 1 : quotient;
}

double float_mod(double a, double b) {
  const double rest = std::fmod(a, b);
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

Value arithmetic(const std::string& op, const Value& a, const Value& b) {
  const bool integers = a.is_integral() && b.is_integral();
  if (op == "+" || op == "-") {
    if (!integers) return op == "+" ? a.real() + b.real() : a.real() - b.real();
    const auto add = [](int64_t x, int64_t y, int64_t* z) { return __builtin_add_overflow(x, y, z); };
    const auto subtract = [](int64_t x, int64_t y, int64_t* z) { return __builtin_sub_overflow(x, y, z); };
    return op == "+" ? checked(a.integer(), b.integer(), add) : checked(a.integer(), b.integer(), subtract);
  }
  if (op == "*") {
    if (!integers) return a.real() * b.real();
    return checked(a.integer(), b.integer(),
                   [](int64_t x, int64_t y, int64_t* z) { return __builtin_mul_overflow(x, y, z); });
  }
  NIBBLE_CHECK(b.real() != 0, "division by zero");
  if (op == "/") return a.real() / b.real();
  if (op == "//")
    return integers ? Value(floor_divide(a.integer(), b.integer())) : Value(std::floor(a.real() / b.real()));
  if (!integers) return float_mod(a.real(), b.real());
  return b.integer() == -1 ? int64_t{0} : a.integer() - floor_divide(a.integer(), b.integer()) * b.integer();
}

}  // namespace

Value Interpreter::add(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return arithmetic("+", a, b);
  if (a.is(Kind::text) && b.is(Kind::text)) {
    const bool markup = a.text().markup || b.text().markup;
    Text out = markup ? html_escaped(a.text()) : a.text();
    append(out, markup ? html_escaped(b.text()) : b.text());
    out.markup = markup;
    return make_text(std::move(out));
  }
  if (a.is(Kind::list) && b.is(Kind::list) && a.list().kind == b.list().kind && a.list().kind <= ListKind::tuple) {
    std::vector<Value> items = a.list().items;
    items.insert(items.end(), b.list().items.begin(), b.list().items.end());
    return make_list(std::move(items), a.list().kind);
  }
  no_operator("+", a, b);
}

Value Interpreter::multiply(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return arithmetic("*", a, b);
  const Value &sequence = a.is_integral() ? b : a, &count = a.is_integral() ? a : b;
  if (!count.is_integral() || !(sequence.is(Kind::text) || sequence.is(Kind::list))) no_operator("*", a, b);
  const auto times = static_cast<uint64_t>(std::max<int64_t>(count.integer(), 0));
  const size_t one = sequence.is(Kind::text) ? sequence.text().bytes.size() : sequence.list().items.size();
  NIBBLE_CHECK(one == 0 || times <= options_.max_output_bytes / one, "a repeated text or list is too long");
  if (sequence.is(Kind::list)) {
    NIBBLE_CHECK(sequence.list().kind <= ListKind::tuple, "a ", type_name(sequence), " cannot be repeated");
    spend(one * times);
    std::vector<Value> items;
    for (uint64_t i = 0; one > 0 && i < times; ++i)
      items.insert(items.end(), sequence.list().items.begin(), sequence.list().items.end());
    return make_list(std::move(items), sequence.list().kind);
  }
  spend(one * times / 16);
  Text out;
  out.markup = sequence.text().markup;
  for (uint64_t i = 0; one > 0 && i < times; ++i) append(out, sequence.text());
  return make_text(std::move(out));
}

Value Interpreter::power(const Value& a, const Value& b) {
  if (!a.is_number() || !b.is_number()) no_operator("**", a, b);
  if (!a.is_integral() || !b.is_integral() || b.integer() < 0) return std::pow(a.real(), b.real());
  int64_t out = 1;
  const int64_t base = a.integer();
  if (base == 0 || base == 1) return b.integer() == 0 ? int64_t{1} : base;
  if (base == -1) return b.integer() % 2 == 0 ? int64_t{1} : int64_t{-1};
  for (int64_t i = 0; i < b.integer(); ++i)
    out = checked(out, base, [](int64_t x, int64_t y, int64_t* z) { return __builtin_mul_overflow(x, y, z); });
  return out;
}

Value Interpreter::binary(const std::string& op, const Value& a, const Value& b) {
  if (op == "+") return add(a, b);
  if (op == "*") return multiply(a, b);
  if (op == "**") return power(a, b);
  if (op == "%" && a.is(Kind::text)) return make_text(format_percent(*this, a.text(), b));
  if (!a.is_number() || !b.is_number()) no_operator(op, a, b);
  return arithmetic(op, a, b);
}

Value Interpreter::negative(const Value& value) {
  need_defined(value);
  NIBBLE_CHECK(value.is_number(), "'-' does not work on a ", type_name(value));
  if (value.is(Kind::real)) return -value.real();
  NIBBLE_CHECK(value.integer() != INT64_MIN, "a number is out of range");
  return -value.integer();
}

bool Interpreter::contains(const Value& where, const Value& what) {
  switch (where.kind()) {
    case Kind::undefined:
      return false;
    case Kind::text:
      spend(1 + where.text().bytes.size() / 64);
      return where.text().bytes.find(text_of(what, "'in' a text").bytes) != std::string::npos;
    case Kind::dict:
      return where.dict().find(what) != nullptr;
    case Kind::list: {
      const std::vector<Value> items = elements(where);
      return std::any_of(items.begin(), items.end(), [&](const Value& item) { return equal(item, what); });
    }
    default:
      fail("'in' does not work on a ", type_name(where));
  }
}

namespace {

Value loop_member(Loop& loop, std::string_view name) {
  const auto neighbour = [](const auto& value, const char* which) {
    return value ? *value : undefined_value(message("there is no ", which, " item"));
  };
  if (name == "index") return loop.index0 + 1;
  if (name == "index0") return loop.index0;
  if (name == "first") return loop.index0 == 0;
  if (name == "last") return loop.peek() == nullptr;
  if (name == "length") return loop.length();
  if (name == "revindex") return loop.length() - loop.index0;
  if (name == "revindex0") return loop.length() - loop.index0 - 1;
  if (name == "depth") return loop.depth0 + 1;
  if (name == "depth0") return loop.depth0;
  if (name == "previtem") return neighbour(loop.previous, "previous");
  if (name == "nextitem") return neighbour(loop.peek(), "next");
  return undefined_value(message("'loop' has no attribute '", name, "'"));
}

}  // namespace

/// A method as a value: the object goes in front of the arguments.
static Value bound(const Value& object, std::string_view name) {
  const Builtin method = find_method(object, name);
  if (method == nullptr) return {};
  return function_value(std::string(name), [object, method](Call& call) {
    call.args.insert(call.args.begin(), object);
    return method(call);
  });
}

Value Interpreter::attribute(const Value& value, std::string_view name) {
  spend(1);
  if (value.is(Kind::loop)) {
    const Value method = bound(value, name);
    return method.is(Kind::function) ? method : loop_member(value.loop(), name);
  }
  if (value.is(Kind::space)) {
    for (const auto& [known, held] : value.space().items)
      if (known == name) return held;
  } else if (value.is(Kind::function)) {
    if (name == "name") return value.function().name;
  } else {
    need_defined(value);
    if (const Value method = bound(value, name); method.is(Kind::function)) return method;
    if (value.is(Kind::dict))
      if (const Value* found = value.dict().find(name)) return *found;
  }
  return undefined_value(message("'", type_name(value), "' has no attribute '", name, "'"));
}

Value Interpreter::item(const Value& value, const Value& key) {
  spend(1);
  need_defined(value);
  if (value.is(Kind::dict)) {
    if (!key.is(Kind::list) && !key.is(Kind::dict) && !key.is(Kind::undefined))
      if (const Value* found = value.dict().find(key)) return *found;
  } else if (key.is_integral()) {
    const auto within = [&](size_t size) {
      const int64_t index = key.integer() < 0 ? key.integer() + static_cast<int64_t>(size) : key.integer();
      return index >= 0 && index < static_cast<int64_t>(size) ? static_cast<size_t>(index) : size;
    };
    if (value.is(Kind::list) && value.list().kind <= ListKind::tuple) {
      const size_t index = within(value.list().items.size());
      if (index < value.list().items.size()) return value.list().items[index];
    } else if (value.is(Kind::text)) {
      const Text& text = value.text();
      spend(text.bytes.size() / 16);
      const size_t count = char_count(text.bytes), index = within(count);
      if (index < count) {
        const size_t at = char_offset(text.bytes, index);
        return make_text(part(text, at, at + char_length(text.bytes, at)));
      }
    }
  }
  if (key.is(Kind::text) && !value.is(Kind::dict)) return attribute(value, key.text().bytes);
  if (key.is(Kind::text))
    if (const Value method = bound(value, key.text().bytes); method.is(Kind::function)) return method;
  return undefined_value(message("'", type_name(value), "' has no element ", repr(key)));
}

Value Interpreter::slice(const Value& value, const Value& start, const Value& stop, const Value& step_value) {
  need_defined(value);
  const bool is_text = value.is(Kind::text);
  NIBBLE_CHECK(is_text || (value.is(Kind::list) && value.list().kind <= ListKind::tuple), "a ", type_name(value),
               " cannot be sliced");
  if (is_text) spend(value.text().bytes.size() / 16);
  const auto size = static_cast<int64_t>(is_text ? char_count(value.text().bytes) : value.list().items.size());
  const int64_t step = step_value.is(Kind::none) ? 1 : whole(step_value, "a slice's step");
  NIBBLE_CHECK(step != 0, "a slice's step is 0");
  const auto bound_at = [&](const Value& bound, int64_t missing) {
    if (bound.is(Kind::none)) return missing;
    int64_t at = whole(bound, "a slice's bound");
    if (at < 0) at = std::max<int64_t>(at, -size - 1) + size;
    return step > 0 ? std::clamp<int64_t>(at, 0, size) : std::clamp<int64_t>(at, -1, size - 1);
  };
  const int64_t begin = bound_at(start, step > 0 ? 0 : size - 1), end = bound_at(stop, step > 0 ? size : -1);
  if (is_text && step == 1) {
    const std::string& bytes = value.text().bytes;
    const size_t from = char_offset(bytes, static_cast<size_t>(begin));
    const size_t to = char_offset(bytes, static_cast<size_t>(std::max(begin, end)));
    return make_text(part(value.text(), from, to));
  }
  const std::vector<Value> all = elements(value);
  std::vector<Value> items;
  const int64_t span = step > 0 ? end - begin : begin - end;
  const uint64_t stride = step > 0 ? static_cast<uint64_t>(step) : 0 - static_cast<uint64_t>(step);
  for (uint64_t i = 0; span > 0 && i < static_cast<uint64_t>(span); i += std::min(stride, static_cast<uint64_t>(span)))
    items.push_back(
        all[static_cast<size_t>(step > 0 ? begin + static_cast<int64_t>(i) : begin - static_cast<int64_t>(i))]);
  if (!is_text) return make_list(std::move(items), value.list().kind);
  Text out;
  out.markup = value.text().markup;
  for (const Value& one : items) append(out, one.text());
  return make_text(std::move(out));
}

}  // namespace nibble::models::jinja
