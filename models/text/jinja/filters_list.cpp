// SPDX-License-Identifier: Apache-2.0
// Filters that work on sequences and dicts.
#include <algorithm>

#include "models/text/jinja/filters.h"
#include "tensor/check.h"

namespace nibble::models::jinja {

namespace {

using Kind = Value::Kind;

/// As sorting and grouping see a text when case does not matter.
Value without_case(const Value& value) {
  return value.is(Kind::text) ? Value(to_lower(value.text().bytes)) : value;
}

/// "a.0.b": member by member, each by `missing` where there is none.
Value member(Interpreter& in, Value value, const Value& path, const Value* missing = nullptr) {
  const auto step = [&](const Value& key) {
    value = in.item(value, key);
    if (value.is(Kind::undefined) && present(missing)) value = *missing;
  };
  if (path.is_integral()) {
    step(path);
    return value;
  }
  const std::string& names = text_of(path, "attribute").bytes;
  for (size_t at = 0; at <= names.size();) {
    const size_t end = std::min(names.find('.', at), names.size());
    const std::string name = names.substr(at, end - at);
    const bool digits = !name.empty() && name.size() < 10 && name.find_first_not_of("0123456789") == std::string::npos;
    step(digits ? Value(static_cast<int64_t>(std::stoll(name))) : Value(name));
    at = end + 1;
  }
  return value;
}

/// What `attribute` and `case_sensitive` make of an element.
class Key {
 public:
  Key(Interpreter& in, const Value* attribute, bool case_sensitive)
      : in_(in), attribute_(present(attribute) ? *attribute : Value()), keeps_case_(case_sensitive) {}
  Value operator()(const Value& element) const {
    const Value value = attribute_.is(Kind::undefined) ? element : member(in_, element, attribute_);
    return keeps_case_ ? value : without_case(value);
  }

 private:
  Interpreter& in_;
  Value attribute_;
  bool keeps_case_;
};

/// Stable; each element with its keys.
std::vector<Value> sorted(Interpreter& in, const std::vector<Value>& items, const std::vector<std::vector<Value>>& keys,
                          bool reverse) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  in.spend(items.size() * 16);
  const auto before = [&](size_t a, size_t b) {
    for (size_t k = 0; k < keys[a].size(); ++k) {
      if (less(keys[a][k], keys[b][k])) return true;
      if (less(keys[b][k], keys[a][k])) return false;
    }
    return false;
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return reverse ? before(b, a) : before(a, b); });
  std::vector<Value> out;
  for (size_t i : order) out.push_back(items[i]);
  return out;
}

Value filter_sort(Call& call) {
  const auto a = call.bind({"value", "reverse", "case_sensitive", "attribute"});
  const std::vector<Value> items = call.in.elements(call.args[0]);
  std::vector<Key> keys;
  if (present(a[3]) && a[3]->is(Kind::text)) {
    const std::string& names = a[3]->text().bytes;
    for (size_t at = 0; at <= names.size();) {
      const size_t end = std::min(names.find(',', at), names.size());
      const Value name(names.substr(at, end - at));
      keys.emplace_back(call.in, &name, flag(a[2]));
      at = end + 1;
    }
  } else {
    keys.emplace_back(call.in, a[3], flag(a[2]));
  }
  std::vector<std::vector<Value>> all(items.size());
  for (size_t i = 0; i < items.size(); ++i)
    for (const Key& key : keys) all[i].push_back(key(items[i]));
  return call.in.make_list(sorted(call.in, items, all, flag(a[1])));
}

Value filter_dictsort(Call& call) {
  const auto a = call.bind({"value", "case_sensitive", "by", "reverse"});
  need_defined(call.args[0]);
  NIBBLE_CHECK(call.args[0].is(Kind::dict), "dictsort: expected a dict, found a ", type_name(call.args[0]));
  const std::string by = present(a[2]) ? text_of(*a[2], "dictsort").bytes : "key";
  NIBBLE_CHECK(by == "key" || by == "value", "dictsort: sorts by 'key' or 'value'");
  std::vector<Value> items;
  std::vector<std::vector<Value>> keys;
  for (const auto& [key, value] : call.args[0].dict().items) {
    items.push_back(call.in.make_list({key, value}, ListKind::tuple));
    const Value& chosen = by == "key" ? key : value;
    keys.push_back({flag(a[1]) ? chosen : without_case(chosen)});
  }
  return call.in.make_list(sorted(call.in, items, keys, flag(a[3])));
}

Value filter_items(Call& call) {
  call.bind({"value"});
  if (call.args[0].is(Kind::undefined)) return call.in.make_list({}, ListKind::iterator);
  NIBBLE_CHECK(call.args[0].is(Kind::dict), "items: expected a dict, found a ", type_name(call.args[0]));
  std::vector<Value> items;
  for (const auto& [key, value] : call.args[0].dict().items)
    items.push_back(call.in.make_list({key, value}, ListKind::tuple));
  return call.in.make_list(std::move(items), ListKind::iterator);
}

Value filter_length(Call& call) {
  call.bind({"obj"});
  const Value& value = call.args[0];
  switch (value.kind()) {
    case Kind::undefined:
      return int64_t{0};
    case Kind::text:
      return static_cast<int64_t>(char_count(value.text().bytes));
    case Kind::dict:
      return static_cast<int64_t>(value.dict().items.size());
    case Kind::list:
      if (value.list().kind != ListKind::iterator) return static_cast<int64_t>(value.list().items.size());
      [[fallthrough]];
    default:
      fail("a ", type_name(value), " has no length");
  }
}

Value filter_list(Call& call) {
  call.bind({"value"});
  return call.in.make_list(call.in.elements(call.args[0]));
}

Value filter_first(Call& call) {
  call.bind({"seq"});
  const Value& value = call.args[0];
  if (value.is(Kind::list) && value.list().kind == ListKind::iterator && !value.list().items.empty()) {
    const Value first = value.list().items[0];
    value.list().items.erase(value.list().items.begin());
    call.in.spend(value.list().items.size());
    return first;
  }
  const std::vector<Value> items = call.in.elements(value);
  return items.empty() ? undefined_value("there is no first item, the sequence is empty") : items.front();
}

Value filter_last(Call& call) {
  call.bind({"seq"});
  NIBBLE_CHECK(!call.args[0].is(Kind::list) || call.args[0].list().kind != ListKind::iterator,
               "last: a generator has no last item; make it a list first");
  const std::vector<Value> items = call.in.elements(call.args[0]);
  return items.empty() ? undefined_value("there is no last item, the sequence is empty") : items.back();
}

Value filter_join(Call& call) {
  const auto a = call.bind({"value", "d", "attribute"});
  const Text between = a[1] != nullptr ? str(*a[1]) : Text{};
  Text out;
  bool first = true;
  for (const Value& item : call.in.elements(call.args[0])) {
    if (!first) append(out, between);
    first = false;
    append(out, str(present(a[2]) ? member(call.in, item, *a[2]) : item));
    call.in.spend(between.bytes.size() / 16);
    NIBBLE_CHECK(out.bytes.size() <= call.in.options().max_output_bytes, "join: the result is too long");
  }
  return call.in.make_text(std::move(out));
}

Value filter_default(Call& call) {
  const auto a = call.bind({"value", "default_value", "boolean"});
  const bool missing = call.args[0].is(Kind::undefined) || (flag(a[2]) && !truth(call.args[0]));
  if (!missing) return call.args[0];
  return a[1] != nullptr ? *a[1] : text_value("");
}

Value filter_reverse(Call& call) {
  call.bind({"value"});
  std::vector<Value> items = call.in.elements(call.args[0]);
  std::reverse(items.begin(), items.end());
  if (!call.args[0].is(Kind::text)) return call.in.make_list(std::move(items), ListKind::iterator);
  Text out;
  for (const Value& item : items) append(out, item.text());
  return call.in.make_text(std::move(out));
}

Value filter_unique(Call& call) {
  const auto a = call.bind({"value", "case_sensitive", "attribute"});
  const Key key(call.in, a[2], flag(a[1]));
  Dict seen;
  std::vector<Value> out;
  for (const Value& item : call.in.elements(call.args[0])) {
    const Value one = key(item);
    if (seen.find(one) != nullptr) continue;
    seen.set(one, None{});
    out.push_back(item);
  }
  return call.in.make_list(std::move(out), ListKind::iterator);
}

Value extreme(Call& call, bool largest) {
  const auto a = call.bind({"value", "case_sensitive", "attribute"});
  const Key key(call.in, a[2], flag(a[1]));
  const std::vector<Value> items = call.in.elements(call.args[0]);
  if (items.empty()) return undefined_value("there is no such item, the sequence is empty");
  size_t best = 0;
  Value best_key = key(items[0]);
  for (size_t i = 1; i < items.size(); ++i) {
    Value one = key(items[i]);
    if (!(largest ? less(best_key, one) : less(one, best_key))) continue;
    best = i;
    best_key = std::move(one);
  }
  return items[best];
}
Value filter_min(Call& call) { return extreme(call, false); }
Value filter_max(Call& call) { return extreme(call, true); }

Value filter_sum(Call& call) {
  const auto a = call.bind({"iterable", "attribute", "start"});
  Value total = a[2] != nullptr ? *a[2] : Value(int64_t{0});
  NIBBLE_CHECK(!total.is(Kind::text), "sum: texts cannot be summed");
  for (const Value& item : call.in.elements(call.args[0]))
    total = call.in.add(total, present(a[1]) ? member(call.in, item, *a[1]) : item);
  return total;
}

Value filter_batch(Call& call) {
  const auto a = call.bind({"value", "linecount", "fill_with"}, 2);
  const int64_t size = whole(*a[1], "batch");
  NIBBLE_CHECK(size >= 1, "batch: the size is ", size);
  std::vector<Value> out, row;
  const auto flush = [&] { out.push_back(call.in.make_list(std::exchange(row, {}))); };
  for (const Value& item : call.in.elements(call.args[0])) {
    if (static_cast<int64_t>(row.size()) == size) flush();
    row.push_back(item);
  }
  if (!row.empty()) {
    NIBBLE_CHECK(!present(a[2]) || size <= 1 << 20, "batch: the size is too large");
    while (present(a[2]) && static_cast<int64_t>(row.size()) < size) row.push_back(*a[2]);
    flush();
  }
  return call.in.make_list(std::move(out), ListKind::iterator);
}

Value filter_slice(Call& call) {
  const auto a = call.bind({"value", "slices", "fill_with"}, 2);
  const std::vector<Value> items = call.in.elements(call.args[0]);
  const int64_t slices = whole(*a[1], "slice");
  NIBBLE_CHECK(slices >= 1 && slices <= 1 << 20, "slice: the number is ", slices);
  const auto count = static_cast<int64_t>(items.size()), each = count / slices, longer = count % slices;
  std::vector<Value> out;
  for (int64_t i = 0, at = 0; i < slices; ++i) {
    const int64_t end = at + each + (i < longer ? 1 : 0);
    std::vector<Value> row(items.begin() + at, items.begin() + end);
    if (present(a[2]) && i >= longer) row.push_back(*a[2]);
    at = end;
    out.push_back(call.in.make_list(std::move(row)));
  }
  return call.in.make_list(std::move(out), ListKind::iterator);
}

Value filter_groupby(Call& call) {
  const auto a = call.bind({"value", "attribute", "default", "case_sensitive"}, 2);
  const std::vector<Value> items = call.in.elements(call.args[0]);
  std::vector<std::vector<Value>> keys;
  std::vector<Value> originals, both;
  for (const Value& item : items) {
    const Value key = member(call.in, item, *a[1], a[2]);
    both.push_back(call.in.make_list({key, item}, ListKind::tuple));
    keys.push_back({flag(a[3]) ? key : without_case(key)});
  }
  std::vector<Value> out, group;
  Value grouper, seen;
  const auto flush = [&] {
    if (!group.empty())
      out.push_back(call.in.make_list({grouper, call.in.make_list(std::exchange(group, {}))}, ListKind::tuple));
  };
  for (const Value& pair : sorted(call.in, both, keys, false)) {
    const Value key = flag(a[3]) ? pair.list().items[0] : without_case(pair.list().items[0]);
    if (group.empty() || !equal(key, seen)) {
      flush();
      grouper = pair.list().items[0];
      seen = key;
    }
    group.push_back(pair.list().items[1]);
  }
  flush();
  return call.in.make_list(std::move(out));
}

/// map() and select() take what is false, none too, for an empty sequence.
std::vector<Value> elements_if_true(Call& call) {
  return truth(call.args[0]) ? call.in.elements(call.args[0]) : std::vector<Value>{};
}

/// The arguments from `first` on, with an element in front: what map() and select() hand on.
Call handed_on(const Call& call, size_t first, Value element, std::string_view name) {
  Call out{call.in, name, {std::move(element)}, call.named};
  for (size_t i = first; i < call.args.size(); ++i) out.args.push_back(call.args[i]);
  return out;
}

Value filter_map(Call& call) {
  const auto named = [&](std::string_view wanted) -> const Value* {
    for (const auto& [key, value] : call.named)
      if (key == wanted) return &value;
    return nullptr;
  };
  std::vector<Value> out;
  const Value* attribute = call.args.size() == 1 ? named("attribute") : nullptr;
  NIBBLE_CHECK(attribute != nullptr || call.args.size() > 1, "map: the name of a filter is missing");
  const Value* missing = named("default");
  for (const Value& item : elements_if_true(call)) {
    if (attribute != nullptr) {
      out.push_back(member(call.in, item, *attribute, missing));
    } else {
      const std::string& name = text_of(call.args[1], "map").bytes;
      Call one = handed_on(call, 2, item, name);
      out.push_back(call.in.call_filter(name, one));
    }
  }
  return call.in.make_list(std::move(out), ListKind::iterator);
}

Value chosen(Call& call, bool by_attribute, bool wanted) {
  const size_t first = by_attribute ? 2 : 1;
  NIBBLE_CHECK(call.args.size() >= first, call.name, ": the name of an attribute is missing");
  std::vector<Value> out;
  for (const Value& item : elements_if_true(call)) {
    const Value value = by_attribute ? member(call.in, item, call.args[1]) : item;
    bool holds = false;
    if (call.args.size() > first) {
      const std::string& name = text_of(call.args[first], call.name).bytes;
      Call one = handed_on(call, first + 1, value, name);
      holds = call.in.call_test(name, one);
    } else {
      holds = truth(value);
    }
    if (holds == wanted) out.push_back(item);
  }
  return call.in.make_list(std::move(out), ListKind::iterator);
}
Value filter_select(Call& call) { return chosen(call, false, true); }
Value filter_reject(Call& call) { return chosen(call, false, false); }
Value filter_selectattr(Call& call) { return chosen(call, true, true); }
Value filter_rejectattr(Call& call) { return chosen(call, true, false); }

Value filter_attr(Call& call) {
  const auto a = call.bind({"obj", "name"}, 2);
  const std::string& name = text_of(*a[1], "attr").bytes;
  if (!call.args[0].is(Kind::dict)) return call.in.attribute(call.args[0], name);
  return undefined_value(message("'dict object' has no attribute '", name, "'"));  // members are no attributes
}

}  // namespace

std::span<const NamedBuiltin> list_filters() {
  static constexpr NamedBuiltin all[] = {
      {"attr", filter_attr},
      {"batch", filter_batch},
      {"count", filter_length},
      {"d", filter_default},
      {"default", filter_default},
      {"dictsort", filter_dictsort},
      {"first", filter_first},
      {"groupby", filter_groupby},
      {"items", filter_items},
      {"join", filter_join},
      {"last", filter_last},
      {"length", filter_length},
      {"list", filter_list},
      {"map", filter_map},
      {"max", filter_max},
      {"min", filter_min},
      {"reject", filter_reject},
      {"rejectattr", filter_rejectattr},
      {"reverse", filter_reverse},
      {"select", filter_select},
      {"selectattr", filter_selectattr},
      {"slice", filter_slice},
      {"sort", filter_sort},
      {"sum", filter_sum},
      {"unique", filter_unique},
  };
  return all;
}

Builtin find_filter(std::string_view name) {
  for (const auto& list : {text_filters(), list_filters()})
    for (const auto& [known, function] : list)
      if (known == name) return function;
  return nullptr;
}

}  // namespace nibble::models::jinja
