// SPDX-License-Identifier: Apache-2.0
#include "models/text/jinja/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "models/text/jinja/loop.h"
#include "tensor/check.h"

namespace nibble::models::jinja {

namespace {

constexpr size_t few_keys = 12;  // found by looking at all of them

int depth_of(const Value& value) {
  if (value.is(Value::Kind::list)) return value.list().depth;
  if (value.is(Value::Kind::dict)) return value.dict().depth;
  return 0;
}

int depth_with(int depth, const Value& value) {
  const int needed = std::max(depth, depth_of(value) + 1);
  NIBBLE_CHECK(needed <= max_value_depth, "values are nested more than ", max_value_depth, " deep");
  return needed;
}

/// Equal keys have equal spellings.
std::string spelled(const Value& key) {
  switch (key.kind()) {
    case Value::Kind::none:
      return "n";
    case Value::Kind::boolean:
    case Value::Kind::integer:
      return message("i", key.integer());
    case Value::Kind::real: {
      const double real = key.real();
      if (real == std::floor(real) && std::abs(real) < 9e18) return message("i", static_cast<int64_t>(real));
      return message("f", repr(real));
    }
    case Value::Kind::text:
      return message("s", key.text().bytes);
    case Value::Kind::list: {
      NIBBLE_CHECK(key.list().kind == ListKind::tuple, "unhashable type: 'list'");
      std::string out = "t";
      for (const Value& item : key.list().items) {
        const std::string one = spelled(item);
        out += message(one.size(), ":", one);
      }
      return out;
    }
    default:
      fail("a ", type_name(key), " cannot be a key");
  }
}

}  // namespace

const void* Value::identity() const {
  return std::visit(
      [](const auto& held) -> const void* {
        if constexpr (requires { held.get(); }) return held.get();
        return nullptr;
      },
      data_);
}

const Value* Dict::find(const Value& key) const {
  if (!index_.empty()) {
    const auto found = index_.find(spelled(key));
    return found == index_.end() ? nullptr : &items[found->second].second;
  }
  if (key.is(Value::Kind::text)) return find(std::string_view(key.text().bytes));
  spelled(key);  // throws for what cannot be a key
  for (const auto& [known, value] : items)
    if (equal(known, key)) return &value;
  return nullptr;
}

const Value* Dict::find(std::string_view key) const {
  if (!index_.empty()) {
    const auto found = index_.find(message("s", key));
    return found == index_.end() ? nullptr : &items[found->second].second;
  }
  for (const auto& [known, value] : items)
    if (known.is(Value::Kind::text) && known.text().bytes == key) return &value;
  return nullptr;
}

void Dict::set(const Value& key, const Value& value) {
  depth = depth_with(depth, value);
  if (const Value* found = find(key)) {
    for (auto& [known, held] : items)
      if (&held == found) held = value;
    return;
  }
  items.emplace_back(key, value);
  if (items.size() <= few_keys) return;
  if (index_.empty())
    for (size_t i = 0; i + 1 < items.size(); ++i) index_.emplace(spelled(items[i].first), i);
  index_.emplace(spelled(key), items.size() - 1);
}

Value undefined_value(std::string why) { return Undefined{std::make_shared<const std::string>(std::move(why))}; }
Value text_value(std::string_view bytes) { return Value(std::string(bytes)); }

Value list_value(std::vector<Value> items, ListKind kind) {
  auto list = std::make_shared<List>();
  list->kind = kind;
  for (const Value& item : items) list->depth = depth_with(list->depth, item);
  list->items = std::move(items);
  return list;
}

Value dict_value(std::vector<std::pair<std::string, Value>> items) {
  auto dict = std::make_shared<Dict>();
  for (auto& [key, value] : items) dict->set(Value(std::move(key)), value);
  return dict;
}

Value function_value(std::string name, std::function<Value(Call&)> body) {
  return std::make_shared<const Function>(Function{std::move(name), std::move(body)});
}

std::string type_name(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::undefined:
      return "undefined";
    case Value::Kind::none:
      return "None";
    case Value::Kind::boolean:
      return "bool object";
    case Value::Kind::integer:
      return "int object";
    case Value::Kind::real:
      return "float object";
    case Value::Kind::text:
      return "str object";
    case Value::Kind::list:
      return value.list().kind == ListKind::list    ? "list object"
             : value.list().kind == ListKind::tuple ? "tuple object"
                                                    : "generator object";
    case Value::Kind::dict:
      return "dict object";
    case Value::Kind::space:
      return "namespace";
    case Value::Kind::loop:
      return "loop";
    case Value::Kind::function:
      return "function";
  }
  return "";
}

bool truth(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::undefined:
    case Value::Kind::none:
      return false;
    case Value::Kind::boolean:
    case Value::Kind::integer:
      return value.integer() != 0;
    case Value::Kind::real:
      return value.real() != 0;
    case Value::Kind::text:
      return !value.text().bytes.empty();
    case Value::Kind::list:
      return value.list().kind == ListKind::iterator || !value.list().items.empty();
    case Value::Kind::dict:
      return !value.dict().items.empty();
    default:
      return true;
  }
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number())
    return a.is_integral() && b.is_integral() ? a.integer() == b.integer() : a.real() == b.real();
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Value::Kind::undefined:
    case Value::Kind::none:
      return true;
    case Value::Kind::text:
      return a.text().bytes == b.text().bytes;
    case Value::Kind::list:
      if (&a.list() == &b.list()) return true;
      return a.list().kind == b.list().kind && a.list().kind <= ListKind::tuple &&
             std::equal(a.list().items.begin(), a.list().items.end(), b.list().items.begin(), b.list().items.end(),
                        equal);
    case Value::Kind::dict:
      if (a.dict().items.size() != b.dict().items.size()) return false;
      return std::all_of(a.dict().items.begin(), a.dict().items.end(), [&](const auto& item) {
        const Value* other = b.dict().find(item.first);
        return other != nullptr && equal(item.second, *other);
      });
    default:
      return a.identity() == b.identity();
  }
}

bool less(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number())
    return a.is_integral() && b.is_integral() ? a.integer() < b.integer() : a.real() < b.real();
  if (a.is(Value::Kind::text) && b.is(Value::Kind::text)) return a.text().bytes < b.text().bytes;
  if (a.is(Value::Kind::list) && b.is(Value::Kind::list) && a.list().kind == b.list().kind) {
    const auto &left = a.list().items, &right = b.list().items;
    for (size_t i = 0; i < std::min(left.size(), right.size()); ++i)
      if (!equal(left[i], right[i])) return less(left[i], right[i]);
    return left.size() < right.size();
  }
  need_defined(a);
  need_defined(b);
  fail("a ", type_name(a), " and a ", type_name(b), " have no order");
}

void need_defined(const Value& value) {
  if (!value.is(Value::Kind::undefined)) return;
  const auto& why = value.undefined().why;
  fail(why ? *why : "a value is undefined");
}

std::string repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific).ptr;
  std::string digits(buffer, end);
  const bool negative = digits[0] == '-';
  if (negative) digits.erase(0, 1);
  const size_t e = digits.find('e');
  const int exponent = std::stoi(digits.substr(e + 1));
  digits.resize(e);
  if (digits.size() > 1) digits.erase(1, 1);  // the point
  std::string out(negative ? 1 : 0, '-');
  const int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (count > 1) out.append(".").append(digits, 1);
    out += exponent < 0 ? "e-" : "e+";
    return message(out, std::abs(exponent) < 10 ? "0" : "", std::abs(exponent));
  }
  if (exponent < 0) return message(out, "0.", std::string(static_cast<size_t>(-exponent - 1), '0'), digits);
  if (count <= exponent + 1)
    return message(out, digits, std::string(static_cast<size_t>(exponent + 1 - count), '0'), ".0");
  return message(out, digits.substr(0, static_cast<size_t>(exponent) + 1), ".",
                 digits.substr(static_cast<size_t>(exponent) + 1));
}

namespace {

/// repr() that keeps track of plain parts: marks all of itself when any text in it has some.
class Repr {
 public:
  std::string out;
  bool plain = false;

  void write(const Value& value, int depth = 0) {
    NIBBLE_CHECK(depth <= 2 * max_value_depth, "values are nested too deeply to be printed");
    switch (value.kind()) {
      case Value::Kind::undefined:
        out += "Undefined";
        break;
      case Value::Kind::none:
        out += "None";
        break;
      case Value::Kind::boolean:
        out += value.boolean() ? "True" : "False";
        break;
      case Value::Kind::integer:
        out += std::to_string(value.integer());
        break;
      case Value::Kind::real:
        out += repr(value.real());
        break;
      case Value::Kind::text:
        plain |= !value.text().plain.empty();
        out += value.text().markup ? message("Markup(", in_quotes(value.text().bytes), ")")
                                   : in_quotes(value.text().bytes);
        break;
      case Value::Kind::list:
        write_list(value.list(), depth);
        break;
      case Value::Kind::dict:
        write_items(value.dict().items, depth);
        break;
      case Value::Kind::space:
        write_namespace(value.space(), depth);
        break;
      case Value::Kind::loop:
        out += message("<LoopContext ", value.loop().index0 + 1, "/", value.loop().length(), ">");
        break;
      case Value::Kind::function:
        out += message("<function ", value.function().name, ">");
        break;
    }
  }

 private:
  void write_list(const List& list, int depth) {
    if (list.kind == ListKind::iterator) {
      out += "<generator object>";
      return;
    }
    const bool tuple = list.kind == ListKind::tuple;
    if (list.kind == ListKind::view) out += "dict_view(";
    out += tuple ? "(" : "[";
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out += ", ";
      write(list.items[i], depth + 1);
    }
    if (tuple && list.items.size() == 1) out += ",";
    out += tuple ? ")" : "]";
    if (list.kind == ListKind::view) out += ")";
  }

  void write_items(const std::vector<std::pair<Value, Value>>& items, int depth) {
    out += "{";
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out += ", ";
      write(items[i].first, depth + 1);
      out += ": ";
      write(items[i].second, depth + 1);
    }
    out += "}";
  }

  void write_namespace(const Namespace& space, int depth) {
    std::vector<std::pair<Value, Value>> items;
    for (const auto& [key, value] : space.items) items.emplace_back(Value(key), value);
    out += "<Namespace ";
    write_items(items, depth + 1);
    out += ">";
  }
};

}  // namespace

std::string repr(const Value& value) {
  Repr printer;
  printer.write(value);
  return printer.out;
}

Text str(const Value& value) {
  if (value.is(Value::Kind::text)) return value.text();
  if (value.is(Value::Kind::undefined)) return {};
  Repr printer;
  printer.write(value);
  return printer.plain ? whole_plain(std::move(printer.out)) : Text{std::move(printer.out)};
}

}  // namespace nibble::models::jinja
