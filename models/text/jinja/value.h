// SPDX-License-Identifier: Apache-2.0
// Values of templates, with the meaning Python gives them: truth, order, equality, str() and repr().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "models/text/jinja/text.h"

namespace nibble::models::jinja {

struct List;
struct Dict;
struct Namespace;
struct Loop;
struct Function;
struct Call;

/// Lists and dicts inside each other at most; keeps every walk over a value, and its destruction, off the stack's end.
constexpr int max_value_depth = 100;

struct Undefined {
  std::shared_ptr<const std::string> why;  ///< "'name' is undefined", for the error of using it; may be null
};
struct None {};

/// Cheap to copy: texts and containers are shared.
class Value {
 public:
  enum class Kind { undefined, none, boolean, integer, real, text, list, dict, space, loop, function };

  Value() = default;
  Value(None) : data_(None{}) {}
  Value(Undefined undefined) : data_(std::move(undefined)) {}
  Value(bool value) : data_(value) {}
  Value(int64_t value) : data_(value) {}
  Value(double value) : data_(value) {}
  Value(Text text) : data_(std::make_shared<const Text>(std::move(text))) {}
  Value(std::string bytes) : Value(Text{std::move(bytes)}) {}
  Value(std::shared_ptr<List> list) : data_(std::move(list)) {}
  Value(std::shared_ptr<Dict> dict) : data_(std::move(dict)) {}
  Value(std::shared_ptr<Namespace> space) : data_(std::move(space)) {}
  Value(std::shared_ptr<Loop> loop) : data_(std::move(loop)) {}
  Value(std::shared_ptr<const Function> function) : data_(std::move(function)) {}
  template <typename T>
  Value(T*) = delete;  // a pointer would become a bool

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is(Kind kind) const { return this->kind() == kind; }
  bool is_number() const { return is(Kind::boolean) || is(Kind::integer) || is(Kind::real); }
  /// Booleans count as integers, as in Python.
  bool is_integral() const { return is(Kind::boolean) || is(Kind::integer); }

  const Undefined& undefined() const { return std::get<Undefined>(data_); }
  bool boolean() const { return std::get<bool>(data_); }
  int64_t integer() const { return is(Kind::boolean) ? static_cast<int64_t>(boolean()) : std::get<int64_t>(data_); }
  double real() const { return is(Kind::real) ? std::get<double>(data_) : static_cast<double>(integer()); }
  const Text& text() const { return *std::get<std::shared_ptr<const Text>>(data_); }
  List& list() const { return *std::get<std::shared_ptr<List>>(data_); }
  const Dict& dict() const { return *std::get<std::shared_ptr<Dict>>(data_); }
  Namespace& space() const { return *std::get<std::shared_ptr<Namespace>>(data_); }
  Loop& loop() const { return *std::get<std::shared_ptr<Loop>>(data_); }
  const Function& function() const { return *std::get<std::shared_ptr<const Function>>(data_); }
  /// The shared object behind containers and functions; null for others.
  const void* identity() const;

 private:
  std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>, std::shared_ptr<List>,
               std::shared_ptr<Dict>, std::shared_ptr<Namespace>, std::shared_ptr<Loop>,
               std::shared_ptr<const Function>>
      data_;
};

/// iterator: what generators are in Python, used up by the first walk and always true; view: keys(), values(), items().
enum class ListKind : uint8_t { list, tuple, iterator, view };

struct List {
  ListKind kind = ListKind::list;
  std::vector<Value> items;
  int depth = 1;
};

/// Keys in the order of their insertion: texts, numbers, booleans, none, tuples of those.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  int depth = 1;

  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  /// Replaces or appends. Throws Error for a key that cannot be one or for too deep a value.
  void set(const Value& key, const Value& value);

 private:
  std::unordered_map<std::string, size_t> index_;  ///< empty while there are few keys
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> items;
};

struct Function {
  std::string name;
  std::function<Value(Call&)> body;
};

Value undefined_value(std::string why);
Value text_value(std::string_view bytes);
/// Throws Error when it is nested too deeply.
Value list_value(std::vector<Value> items, ListKind kind = ListKind::list);
Value dict_value(std::vector<std::pair<std::string, Value>> items);
Value function_value(std::string name, std::function<Value(Call&)> body);

/// "'dict object' has no attribute 'x'" calls values so.
std::string type_name(const Value& value);
bool truth(const Value& value);
bool equal(const Value& a, const Value& b);
/// a < b; throws Error for kinds that have no order.
bool less(const Value& a, const Value& b);
/// str(): what printing a value gives.
Text str(const Value& value);
std::string repr(const Value& value);
std::string repr(double value);
/// Throws Error with the reason of an undefined value.
void need_defined(const Value& value);

/// Values from JSON text. With `plain` all texts in it are plain, except "role"s at the top (of a list of messages, or
/// of lists in a dict), from which templates build control tokens. Throws Error.
Value parse_json(std::string_view json, bool plain);
struct JsonStyle {
  bool ensure_ascii = false, sort_keys = false;
  std::optional<std::string> indent = {};  ///< of one level; none: on one line
  std::optional<std::string> item_separator = {}, key_separator = {};
};
/// json.dumps(). Throws Error for values that JSON has not.
Text to_json(const Value& value, const JsonStyle& style);

}  // namespace nibble::models::jinja
