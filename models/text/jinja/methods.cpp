// SPDX-License-Identifier: Apache-2.0
// Methods of texts, dicts, lists and loops.
#include <algorithm>

#include "models/text/jinja/arguments.h"
#include "models/text/jinja/loop.h"
#include "tensor/check.h"

namespace nibble::models::jinja {

namespace {

using Kind = Value::Kind;

const Text& self(const Call& call) { return call.args[0].text(); }

template <Side side>
Value text_strip(Call& call) {
  const auto a = call.bind({"self", "chars"});
  return call.in.make_text(
      present(a[1]) ? stripped(self(call), side, &text_of(*a[1], call.name).bytes) : stripped(self(call), side));
}

template <std::string (*map)(std::string_view)>
Value text_map(Call& call) {
  call.bind({"self"});
  return call.in.make_text(derived(map(self(call).bytes), self(call)));
}

/// str.title(): a word begins after whatever is no letter.
std::string titled(std::string_view text) {
  std::string out;
  bool inside = false;
  for (size_t at = 0, length; at < text.size(); at += length) {
    length = char_length(text, at);
    const std::string_view one = text.substr(at, length);
    out += inside ? to_lower(one) : capitalized(one);
    inside = is_class(code_point(text, at), CharClass::alpha);
  }
  return out;
}

std::string swapped(std::string_view text) {
  std::string out;
  for (size_t at = 0, length; at < text.size(); at += length) {
    length = char_length(text, at);
    const std::string_view one = text.substr(at, length);
    out += is_class(code_point(text, at), CharClass::upper) ? to_lower(one) : to_upper(one);
  }
  return out;
}

template <bool at_end>
Value text_affix(Call& call) {
  const auto a = call.bind({"self", "affix"}, 2);
  const auto fits = [&](const Value& affix) {
    const std::string& bytes = text_of(affix, call.name).bytes;
    return at_end ? self(call).bytes.ends_with(bytes) : self(call).bytes.starts_with(bytes);
  };
  if (!a[1]->is(Kind::list)) return fits(*a[1]);
  return std::any_of(a[1]->list().items.begin(), a[1]->list().items.end(), fits);
}

template <bool at_end>
Value text_remove(Call& call) {
  const std::string& affix = text_of(*call.bind({"self", "affix"}, 2)[1], call.name).bytes;
  const Text& text = self(call);
  if (at_end && text.bytes.ends_with(affix)) return call.in.make_text(part(text, 0, text.bytes.size() - affix.size()));
  if (!at_end && text.bytes.starts_with(affix)) return call.in.make_text(part(text, affix.size(), text.bytes.size()));
  return call.args[0];
}

Value text_replace(Call& call) {
  call.bind({"self", "old", "new", "count"}, 3);
  for (size_t i = 1; i < std::min<size_t>(call.args.size(), 3); ++i) text_of(call.args[i], "replace");
  return find_filter("replace")(call);
}

/// Words between white space; what is left after `most` cuts (-1: no limit) stays whole, inner and outer space with it.
std::vector<Text> split_space(const Text& text, int64_t most, bool from_right) {
  std::vector<TextRange> words;
  bool inside = false;
  for (size_t at = 0, length; at < text.bytes.size(); at += length) {
    length = char_length(text.bytes, at);
    const bool space = is_space(code_point(text.bytes, at));
    if (!space && !inside) words.push_back({at, at});
    if (!space) words.back().end = at + length;
    inside = !space;
  }
  const size_t cuts = most < 0 ? words.size() : std::min(static_cast<size_t>(most), words.size());
  if (cuts < words.size() && from_right) {
    words.erase(words.begin(), words.end() - static_cast<std::ptrdiff_t>(cuts) - 1);
    words.front().begin = 0;
  } else if (cuts < words.size()) {
    words.resize(cuts + 1);
    words.back().end = text.bytes.size();
  }
  std::vector<Text> out;
  for (const TextRange& word : words) out.push_back(part(text, word.begin, word.end));
  return out;
}

std::vector<Text> split_at(const Text& text, const std::string& separator, int64_t most, bool from_right) {
  NIBBLE_CHECK(!separator.empty(), "split: the separator is empty");
  std::vector<Text> out;
  size_t begin = 0, end = text.bytes.size();
  for (; most != 0; --most) {
    const size_t found = from_right ? (end < separator.size() ? std::string::npos
                                                              : text.bytes.rfind(separator, end - separator.size()))
                                    : text.bytes.find(separator, begin);
    if (found == std::string::npos) break;
    if (from_right) {
      out.push_back(part(text, found + separator.size(), end));
      end = found;
    } else {
      out.push_back(part(text, begin, found));
      begin = found + separator.size();
    }
  }
  out.push_back(part(text, begin, end));
  if (from_right) std::reverse(out.begin(), out.end());
  return out;
}

Value texts(Call& call, std::vector<Text> parts, ListKind kind = ListKind::list) {
  std::vector<Value> out;
  for (Text& one : parts) out.push_back(call.in.make_text(std::move(one)));
  return call.in.make_list(std::move(out), kind);
}

template <bool from_right>
Value text_split(Call& call) {
  const auto a = call.bind({"self", "sep", "maxsplit"});
  const int64_t most = whole_or(a[2], -1, "split");
  // every piece is at most a walk over the rest
  if (present(a[1])) return texts(call, split_at(self(call), text_of(*a[1], "split").bytes, most, from_right));
  return texts(call, split_space(self(call), most, from_right));
}

Value text_splitlines(Call& call) {
  const auto a = call.bind({"self", "keepends"});
  const Text& text = self(call);
  std::vector<Text> out;
  size_t begin = 0;
  for (size_t at = 0; at < text.bytes.size();) {
    const int32_t code = code_point(text.bytes, at);
    size_t next = at + char_length(text.bytes, at);
    const bool ends = (code >= 10 && code <= 13) || (code >= 0x1c && code <= 0x1e) || code == 0x85 || code == 0x2028 ||
                      code == 0x2029;
    if (code == '\r' && next < text.bytes.size() && text.bytes[next] == '\n') ++next;
    if (ends) {
      out.push_back(part(text, begin, flag(a[1]) ? next : at));
      begin = next;
    }
    at = next;
  }
  if (begin < text.bytes.size()) out.push_back(part(text, begin, text.bytes.size()));
  return texts(call, std::move(out));
}

template <bool from_right>
Value text_partition(Call& call) {
  const Text& separator = text_of(*call.bind({"self", "sep"}, 2)[1], "partition");
  const Text& text = self(call);
  NIBBLE_CHECK(!separator.bytes.empty(), "partition: the separator is empty");
  const size_t at = from_right ? text.bytes.rfind(separator.bytes) : text.bytes.find(separator.bytes);
  if (at == std::string::npos)
    return texts(call, from_right ? std::vector<Text>{{}, {}, text} : std::vector<Text>{text, {}, {}}, ListKind::tuple);
  const size_t end = at + separator.bytes.size();
  return texts(call, {part(text, 0, at), separator, part(text, end, text.bytes.size())}, ListKind::tuple);
}

/// The index of a part in characters between `start` and `end`, or -1.
int64_t position(Call& call, bool from_right) {
  const auto a = call.bind({"self", "sub", "start", "end"}, 2);
  const std::string& bytes = self(call).bytes;
  const std::string& wanted = text_of(*a[1], call.name).bytes;
  const auto count = static_cast<int64_t>(char_count(bytes));
  const auto offset = [&](const Value* given, int64_t missing) {
    const int64_t at = whole_or(given, missing, call.name);
    return char_offset(bytes,
                       static_cast<size_t>(std::clamp<int64_t>(at < 0 ? std::max(at, -count) + count : at, 0, count)));
  };
  const size_t begin = offset(a[2], 0), end = offset(a[3], count);
  if (begin > end) return -1;
  const std::string_view window = std::string_view(bytes).substr(begin, end - begin);
  const size_t found = from_right ? window.rfind(wanted) : window.find(wanted);
  if (found == std::string_view::npos) return -1;
  return static_cast<int64_t>(char_count(std::string_view(bytes).substr(0, begin + found)));
}

template <bool from_right, bool must>
Value text_find(Call& call) {
  const int64_t at = position(call, from_right);
  NIBBLE_CHECK(!must || at >= 0, call.name, ": the text is not there");
  return at;
}

Value text_count(Call& call) {
  const std::string& wanted = text_of(*call.bind({"self", "sub"}, 2)[1], "count").bytes;
  const std::string& bytes = self(call).bytes;
  if (wanted.empty()) return static_cast<int64_t>(char_count(bytes)) + 1;
  int64_t count = 0;
  for (size_t at = bytes.find(wanted); at != std::string::npos; at = bytes.find(wanted, at + wanted.size())) ++count;
  return count;
}

Value text_join(Call& call) {
  const auto a = call.bind({"self", "iterable"}, 2);
  Text out;
  bool first = true;
  for (const Value& item : call.in.elements(*a[1])) {
    if (!first) append(out, self(call));
    first = false;
    append(out, text_of(item, "join"));
    call.in.spend(self(call).bytes.size() / 16);
    NIBBLE_CHECK(out.bytes.size() <= call.in.options().max_output_bytes, "join: the result is too long");
  }
  return call.in.make_text(std::move(out));
}

template <CharClass wanted>
Value text_is(Call& call) {
  call.bind({"self"});
  const std::string& bytes = self(call).bytes;
  for (size_t at = 0; at < bytes.size(); at += char_length(bytes, at))
    if (!is_class(code_point(bytes, at), wanted)) return false;
  return !bytes.empty();
}

template <CharClass wanted, CharClass other>
Value text_is_case(Call& call) {
  call.bind({"self"});
  const std::string& bytes = self(call).bytes;
  bool any = false;
  for (size_t at = 0; at < bytes.size(); at += char_length(bytes, at)) {
    if (is_class(code_point(bytes, at), other)) return false;
    any |= is_class(code_point(bytes, at), wanted);
  }
  return any;
}

template <Side side>
Value text_pad(Call& call) {
  const auto a = call.bind({"self", "width", "fillchar"}, 2);
  const int64_t width = whole(*a[1], call.name), count = static_cast<int64_t>(char_count(self(call).bytes));
  const Text fill = present(a[2]) ? text_of(*a[2], call.name) : Text{" "};
  NIBBLE_CHECK(width <= 1 << 20 && char_count(fill.bytes) == 1, call.name, ": wrong width or filling");
  const int64_t missing = std::max<int64_t>(width - count, 0);
  const int64_t left = side == Side::left ? missing : side == Side::right ? 0 : missing / 2 + (missing & width & 1);
  Text out;
  for (int64_t i = 0; i < left; ++i) append(out, fill);
  append(out, self(call));
  for (int64_t i = left; i < missing; ++i) append(out, fill);
  return call.in.make_text(std::move(out));
}

Value text_zfill(Call& call) {
  const int64_t width = whole(*call.bind({"self", "width"}, 2)[1], "zfill");
  const Text& text = self(call);
  const auto count = static_cast<int64_t>(char_count(text.bytes));
  NIBBLE_CHECK(width <= 1 << 20, "zfill: the width is too large");
  const size_t sign = text.bytes.starts_with('-') || text.bytes.starts_with('+') ? 1 : 0;
  Text out = part(text, 0, sign);
  append(out, std::string(static_cast<size_t>(std::max<int64_t>(width - count, 0)), '0'));
  append(out, part(text, sign, text.bytes.size()));
  return call.in.make_text(std::move(out));
}

Value text_format(Call& call) { return call.in.make_text(format_braces(call)); }

constexpr NamedBuiltin text_methods[] = {
    {"capitalize", text_map<capitalized>},
    {"casefold", text_map<to_lower>},
    {"center", text_pad<Side::both>},
    {"count", text_count},
    {"endswith", text_affix<true>},
    {"find", text_find<false, false>},
    {"format", text_format},
    {"index", text_find<false, true>},
    {"isalnum", text_is<CharClass::alnum>},
    {"isalpha", text_is<CharClass::alpha>},
    {"isdecimal", text_is<CharClass::digit>},
    {"isdigit", text_is<CharClass::digit>},
    {"islower", text_is_case<CharClass::lower, CharClass::upper>},
    {"isnumeric", text_is<CharClass::digit>},
    {"isspace", text_is<CharClass::space>},
    {"isupper", text_is_case<CharClass::upper, CharClass::lower>},
    {"join", text_join},
    {"ljust", text_pad<Side::right>},
    {"lower", text_map<to_lower>},
    {"lstrip", text_strip<Side::left>},
    {"partition", text_partition<false>},
    {"removeprefix", text_remove<false>},
    {"removesuffix", text_remove<true>},
    {"replace", text_replace},
    {"rfind", text_find<true, false>},
    {"rindex", text_find<true, true>},
    {"rjust", text_pad<Side::left>},
    {"rpartition", text_partition<true>},
    {"rsplit", text_split<true>},
    {"rstrip", text_strip<Side::right>},
    {"split", text_split<false>},
    {"splitlines", text_splitlines},
    {"startswith", text_affix<false>},
    {"strip", text_strip<Side::both>},
    {"swapcase", text_map<swapped>},
    {"title", text_map<titled>},
    {"upper", text_map<to_upper>},
    {"zfill", text_zfill},
};

Value dict_get(Call& call) {
  const auto a = call.bind({"self", "key", "default"}, 2);
  if (const Value* found = call.args[0].dict().find(*a[1])) return *found;
  return a[2] != nullptr ? *a[2] : Value(None{});
}

template <int what>  // 0: keys, 1: values, 2: both
Value dict_view(Call& call) {
  call.bind({"self"});
  std::vector<Value> out;
  for (const auto& [key, value] : call.args[0].dict().items)
    out.push_back(what == 0 ? key : what == 1 ? value : call.in.make_list({key, value}, ListKind::tuple));
  return call.in.make_list(std::move(out), ListKind::view);
}

Value dict_copy(Call& call) {
  call.bind({"self"});
  call.in.spend(1 + call.args[0].dict().items.size() * 4);
  return std::make_shared<Dict>(call.args[0].dict());
}

Value refused(Call& call) {
  fail("'", call.name, "' would change a ", type_name(call.args[0]), ", which templates may not");
}

constexpr NamedBuiltin dict_methods[] = {
    {"clear", refused}, {"copy", dict_copy}, {"get", dict_get}, {"items", dict_view<2>}, {"keys", dict_view<0>},
    {"pop", refused}, {"popitem", refused}, {"setdefault", refused}, {"update", refused}, {"values", dict_view<1>},
};

/// Nothing that could hold the list itself or make it deeper.
Value list_append(Call& call) {
  const auto a = call.bind({"self", "object"}, 2);
  NIBBLE_CHECK(a[1]->is(Kind::text) || a[1]->is(Kind::none) || a[1]->is_number(),
               "append: only texts, numbers, booleans and none can be appended, found a ", type_name(*a[1]));
  call.in.spend(2);
  call.args[0].list().items.push_back(*a[1]);
  return None{};
}

Value list_pop(Call& call) {
  const auto a = call.bind({"self", "index"});
  std::vector<Value>& items = call.args[0].list().items;
  const auto size = static_cast<int64_t>(items.size());
  const int64_t given = whole_or(a[1], -1, "pop"), at = given < 0 ? given + size : given;
  NIBBLE_CHECK(at >= 0 && at < size, "pop: there is no element ", given, " in a list of ", size);
  call.in.spend(1 + static_cast<size_t>(size - at) / 8);
  const Value out = items[static_cast<size_t>(at)];
  items.erase(items.begin() + at);
  return out;
}

Value list_index(Call& call) {
  const auto a = call.bind({"self", "value"}, 2);
  const std::vector<Value> items = call.in.elements(call.args[0]);
  for (size_t i = 0; i < items.size(); ++i)
    if (equal(items[i], *a[1])) return static_cast<int64_t>(i);
  fail("index: the value is not in the list");
}

Value list_count(Call& call) {
  const auto a = call.bind({"self", "value"}, 2);
  const std::vector<Value> items = call.in.elements(call.args[0]);
  return static_cast<int64_t>(
      std::count_if(items.begin(), items.end(), [&](const Value& item) { return equal(item, *a[1]); }));
}

Value list_copy(Call& call) {
  call.bind({"self"});
  return call.in.make_list(call.in.elements(call.args[0]));
}

constexpr NamedBuiltin list_methods[] = {
    {"append", list_append}, {"clear", refused},    {"copy", list_copy}, {"count", list_count},
    {"extend", refused},     {"index", list_index}, {"insert", refused}, {"pop", list_pop},
    {"remove", refused},     {"reverse", refused},  {"sort", refused},
};
constexpr NamedBuiltin tuple_methods[] = {{"count", list_count}, {"index", list_index}};

Value loop_cycle(Call& call) {
  NIBBLE_CHECK(call.args.size() > 1, "loop.cycle: nothing to cycle through");
  const auto count = static_cast<int64_t>(call.args.size()) - 1;
  return call.args[static_cast<size_t>(1 + std::max<int64_t>(call.args[0].loop().index0, 0) % count)];
}

Value loop_changed(Call& call) {
  Loop& loop = call.args[0].loop();
  if (loop.over) return true;
  std::vector<Value> now(call.args.begin() + 1, call.args.end());
  const bool same =
      loop.changed && std::equal(now.begin(), now.end(), loop.changed->begin(), loop.changed->end(), equal);
  if (!same) loop.changed = std::move(now);
  return !same;
}

constexpr NamedBuiltin loop_methods[] = {{"changed", loop_changed}, {"cycle", loop_cycle}};

}  // namespace

Builtin find_method(const Value& value, std::string_view name) {
  const auto among = [&](std::span<const NamedBuiltin> list) -> Builtin {
    for (const auto& [known, function] : list)
      if (known == name) return function;
    return nullptr;
  };
  switch (value.kind()) {
    case Kind::text:
      return among(text_methods);
    case Kind::dict:
      return among(dict_methods);
    case Kind::list:
      if (value.list().kind == ListKind::list) return among(list_methods);
      return value.list().kind == ListKind::tuple ? among(tuple_methods) : nullptr;
    case Kind::loop:
      return among(loop_methods);
    default:
      return nullptr;
  }
}

}  // namespace nibble::models::jinja
