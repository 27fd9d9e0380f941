// SPDX-License-Identifier: Apache-2.0
// What stands behind `is`.
#include "models/text/jinja/arguments.h"
#include "tensor/check.h"

namespace nibble::models::jinja {

namespace {

using Kind = Value::Kind;

const Value& first(Call& call) {
  call.bind({"value"});
  return call.args[0];
}
const Value& second(Call& call) {
  call.bind({"a", "b"}, 2);
  return call.args.size() > 1 ? call.args[1] : call.named[0].second;
}

template <Kind kind>
Value is_kind(Call& call) {
  return first(call).is(kind);
}

Value is_defined(Call& call) { return !first(call).is(Kind::undefined); }
Value is_true(Call& call) { return first(call).is(Kind::boolean) && call.args[0].boolean(); }
Value is_false(Call& call) { return first(call).is(Kind::boolean) && !call.args[0].boolean(); }
Value is_number(Call& call) { return first(call).is_number(); }
Value is_callable(Call& call) {
  return first(call).is(Kind::function) || (call.args[0].is(Kind::loop));
}

Value is_iterable(Call& call) {
  const Kind kind = first(call).kind();
  return kind == Kind::undefined || kind == Kind::text || kind == Kind::list || kind == Kind::dict;
}

/// Has a length and can be indexed, dicts included.
Value is_sequence(Call& call) {
  const Value& value = first(call);
  if (value.is(Kind::list)) return value.list().kind <= ListKind::tuple;
  return value.is(Kind::undefined) || value.is(Kind::text) || value.is(Kind::dict);
}

Value is_odd(Call& call) { return whole(first(call), "odd") % 2 != 0; }
Value is_even(Call& call) { return whole(first(call), "even") % 2 == 0; }
Value is_divisibleby(Call& call) {
  const int64_t by = whole(second(call), "divisibleby");
  NIBBLE_CHECK(by != 0, "division by zero");
  return by == -1 || whole(call.args[0], "divisibleby") % by == 0;
}

bool all_of_class(const Value& value, CharClass wanted, CharClass other) {
  bool any = false;
  const Text text = str(value);
  for (size_t at = 0; at < text.bytes.size(); at += char_length(text.bytes, at)) {
    const int32_t code = code_point(text.bytes, at);
    if (is_class(code, other)) return false;
    any |= is_class(code, wanted);
  }
  return any;
}
Value is_lower(Call& call) { return all_of_class(first(call), CharClass::lower, CharClass::upper); }
Value is_upper(Call& call) { return all_of_class(first(call), CharClass::upper, CharClass::lower); }

Value is_equal(Call& call) { return equal(second(call), call.args[0]); }
Value is_not_equal(Call& call) { return !equal(second(call), call.args[0]); }
Value is_less(Call& call) { return less(call.args[0], second(call)); }
Value is_greater(Call& call) { return less(second(call), call.args[0]); }
Value is_at_most(Call& call) { return !less(second(call), call.args[0]); }
Value is_at_least(Call& call) { return !less(call.args[0], second(call)); }

Value is_in(Call& call) {
  const Value& where = second(call);
  const Value& what = call.args[0];
  if (where.is(Kind::text)) return where.text().bytes.find(text_of(what, "in").bytes) != std::string::npos;
  if (where.is(Kind::dict)) return where.dict().find(what) != nullptr;
  for (const Value& item : call.in.elements(where))
    if (equal(item, what)) return true;
  return false;
}

Value is_same(Call& call) {
  const Value& other = second(call);
  const Value& value = call.args[0];
  if (value.kind() != other.kind()) return false;
  if (value.identity() != nullptr && !value.is(Kind::text)) return value.identity() == other.identity();
  return equal(value, other);
}

Value is_filter(Call& call) { return find_filter(text_of(first(call), "filter").bytes) != nullptr; }
Value is_test(Call& call) { return find_test(text_of(first(call), "test").bytes) != nullptr; }
Value is_escaped(Call& call) { return first(call).is(Kind::text) && call.args[0].text().markup; }

constexpr NamedBuiltin all[] = {
    {"boolean", is_kind<Kind::boolean>},
    {"callable", is_callable},
    {"defined", is_defined},
    {"divisibleby", is_divisibleby},
    {"eq", is_equal},
    {"equalto", is_equal},
    {"escaped", is_escaped},
    {"even", is_even},
    {"false", is_false},
    {"filter", is_filter},
    {"float", is_kind<Kind::real>},
    {"ge", is_at_least},
    {"greaterthan", is_greater},
    {"gt", is_greater},
    {"in", is_in},
    {"integer", is_kind<Kind::integer>},
    {"iterable", is_iterable},
    {"le", is_at_most},
    {"lessthan", is_less},
    {"lower", is_lower},
    {"lt", is_less},
    {"mapping", is_kind<Kind::dict>},
    {"ne", is_not_equal},
    {"none", is_kind<Kind::none>},
    {"number", is_number},
    {"odd", is_odd},
    {"sameas", is_same},
    {"sequence", is_sequence},
    {"string", is_kind<Kind::text>},
    {"test", is_test},
    {"true", is_true},
    {"undefined", is_kind<Kind::undefined>},
    {"upper", is_upper},
    {"==", is_equal},
    {"!=", is_not_equal},
    {"<", is_less},
    {">", is_greater},
    {"<=", is_at_most},
    {">=", is_at_least},
};

}  // namespace

Builtin find_test(std::string_view name) {
  for (const auto& [known, function] : all)
    if (known == name) return function;
  return nullptr;
}

}  // namespace nibble::models::jinja
