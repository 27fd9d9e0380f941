// SPDX-License-Identifier: Apache-2.0
// Filters that work on one text or number.
#include "models/text/jinja/filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "models/text/jinja/arguments.h"
#include "tensor/check.h"

namespace nibble::models::jinja {

namespace {

using Kind = Value::Kind;

Value filter_upper(Call& call) {
  call.bind({"s"});
  const Text text = input_text(call);
  return call.in.make_text(derived(to_upper(text.bytes), text));
}

Value filter_lower(Call& call) {
  call.bind({"s"});
  const Text text = input_text(call);
  return call.in.make_text(derived(to_lower(text.bytes), text));
}

Value filter_capitalize(Call& call) {
  call.bind({"s"});
  const Text text = input_text(call);
  return call.in.make_text(derived(capitalized(text.bytes), text));
}

/// Words begin after white space and any of -({[<, unlike in str.title().
Value filter_title(Call& call) {
  call.bind({"s"});
  const Text text = input_text(call);
  std::string out;
  size_t word = 0;
  const auto flush = [&](size_t end) {
    const std::string_view part = std::string_view(text.bytes).substr(word, end - word);
    if (part.empty()) return;
    const size_t first = char_length(part, 0);
    out += to_upper(part.substr(0, first)) + to_lower(part.substr(first));
  };
  for (size_t at = 0; at < text.bytes.size();) {
    const int32_t code = code_point(text.bytes, at);
    const size_t length = char_length(text.bytes, at);
    if (is_space(code) ||
        (code < 0x80 && std::string_view("-({[<").find(static_cast<char>(code)) != std::string::npos)) {
      flush(at);
      out += text.bytes.substr(at, length);
      word = at + length;
    }
    at += length;
  }
  flush(text.bytes.size());
  return call.in.make_text(derived(std::move(out), text));
}

Value filter_trim(Call& call) {
  const auto a = call.bind({"value", "chars"});
  const Text text = input_text(call);
  if (!present(a[1])) return call.in.make_text(stripped(text, Side::both));
  return call.in.make_text(stripped(text, Side::both, &text_of(*a[1], "trim").bytes));
}

Value filter_replace(Call& call) {
  const auto a = call.bind({"s", "old", "new", "count"}, 3);
  const Text text = input_text(call), from = str(*a[1]), to = str(*a[2]);
  // bounds the result before it is made
  const size_t most = from.bytes.empty() ? text.bytes.size() + 1 : text.bytes.size() / from.bytes.size();
  NIBBLE_CHECK(to.bytes.size() <= call.in.options().max_output_bytes / (most + 1), "replace: the result is too long");
  call.in.spend(most * to.bytes.size() / 16);
  return call.in.make_text(replaced(text, from, to, whole_or(a[3], -1, "replace")));
}

Value filter_string(Call& call) {
  call.bind({"object"});
  return call.in.make_text(str(call.args[0]));
}

Value filter_safe(Call& call) {
  call.bind({"value"});
  Text text = input_text(call);
  text.markup = true;
  return call.in.make_text(std::move(text));
}

Value filter_escape(Call& call) {
  call.bind({"s"});
  return call.in.make_text(html_escaped(input_text(call)));
}

Value filter_forceescape(Call& call) {
  call.bind({"value"});
  Text text = input_text(call);
  text.markup = false;
  return call.in.make_text(html_escaped(text));
}

Value filter_indent(Call& call) {
  const auto a = call.bind({"s", "width", "first", "blank"});
  Text text = input_text(call);
  const bool first = flag(a[2]), blank = flag(a[3]);
  const bool is_text = a[1] != nullptr && a[1]->is(Kind::text);
  const int64_t width = is_text ? 0 : std::max<int64_t>(whole_or(a[1], 4, "indent"), 0);
  NIBBLE_CHECK(width <= 1000, "indent: ", width, " spaces are too many");
  const Text indention = is_text ? a[1]->text() : Text{std::string(static_cast<size_t>(width), ' ')};
  const auto lines = static_cast<size_t>(std::count(text.bytes.begin(), text.bytes.end(), '\n')) + 1;
  NIBBLE_CHECK(indention.bytes.size() <= call.in.options().max_output_bytes / lines, "indent: the result is too long");
  Text out;
  for (size_t at = 0, line = 0; line < lines; ++line) {
    const size_t end = std::min(text.bytes.find('\n', at), text.bytes.size());
    if (line == 0 ? first : (blank || end > at)) append(out, indention);
    append(out, part(text, at, std::min(end + 1, text.bytes.size())));
    at = end + 1;
  }
  return call.in.make_text(std::move(out));
}

Value filter_center(Call& call) {
  const auto a = call.bind({"value", "width"});
  const Text text = input_text(call);
  const int64_t width = whole_or(a[1], 80, "center"), count = static_cast<int64_t>(char_count(text.bytes));
  if (width <= count) return call.in.make_text(text);
  NIBBLE_CHECK(width <= 1 << 20, "center: the width is too large");
  const int64_t missing = width - count, left = missing / 2 + (missing & width & 1);
  Text out{std::string(static_cast<size_t>(left), ' ')};
  append(out, text);
  append(out, std::string(static_cast<size_t>(missing - left), ' '));
  return call.in.make_text(std::move(out));
}

Value filter_truncate(Call& call) {
  const auto a = call.bind({"s", "length", "killwords", "end", "leeway"});
  const Text text = input_text(call);
  const Text end = present(a[3]) ? str(*a[3]) : Text{"..."};
  const int64_t length = whole_or(a[1], 255, "truncate"), leeway = whole_or(a[4], 5, "truncate");
  const auto tail = static_cast<int64_t>(char_count(end.bytes));
  NIBBLE_CHECK(length >= tail && leeway >= 0, "truncate: the length is shorter than the end");
  if (static_cast<int64_t>(char_count(text.bytes)) <= length + leeway) return call.in.make_text(text);
  Text out = part(text, 0, char_offset(text.bytes, static_cast<size_t>(length - tail)));
  const size_t space = out.bytes.rfind(' ');
  if (!flag(a[2]) && space != std::string::npos) out = part(out, 0, space);
  append(out, end);
  return call.in.make_text(std::move(out));
}

Value filter_wordcount(Call& call) {
  call.bind({"s"});
  const Text text = input_text(call);
  int64_t words = 0;
  bool inside = false;
  for (size_t at = 0; at < text.bytes.size(); at += char_length(text.bytes, at)) {
    const int32_t code = code_point(text.bytes, at);
    const bool word = code == '_' || is_class(code, CharClass::alnum);
    words += word && !inside;
    inside = word;
  }
  return words;
}

Value filter_urlencode(Call& call) {
  call.bind({"value"});
  const auto quote = [](const Value& value, bool query) {
    std::string out;
    for (char c : str(value).bytes) {
      const bool kept = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                        std::string_view("_.-~").find(c) != std::string::npos || (c == '/' && !query);
      constexpr std::string_view hex = "0123456789ABCDEF";
      if (kept)
        out += c;
      else if (c == ' ' && query)
        out += '+';
      else
        (((out += '%') += hex[static_cast<uint8_t>(c) >> 4])) += hex[static_cast<uint8_t>(c) & 15];
    }
    return out;
  };
  const Value& value = call.args[0];
  if (!value.is(Kind::dict)) return call.in.make_text({quote(value, false)});
  std::string out;
  for (const auto& [key, held] : value.dict().items)
    out.append(out.empty() ? "" : "&").append(quote(key, true)).append("=").append(quote(held, true));
  return call.in.make_text({std::move(out)});
}

/// The number a text spells in Python's way, or nothing.
template <typename Number>
std::optional<Number> parsed(std::string_view spelled, int base) {
  const Text text = stripped(Text{std::string(spelled)}, Side::both);
  std::string_view digits = text.bytes;
  if (digits.starts_with('+')) digits.remove_prefix(1);
  if (digits.starts_with("+") || digits.starts_with("+-")) return std::nullopt;
  Number out{};
  std::from_chars_result result;
  if constexpr (std::is_same_v<Number, double>)
    result = std::from_chars(digits.data(), digits.data() + digits.size(), out);
  else
    result = std::from_chars(digits.data(), digits.data() + digits.size(), out, base);
  if (result.ec != std::errc() || result.ptr != digits.data() + digits.size()) return std::nullopt;
  return out;
}

Value truncated(double value) {
  NIBBLE_CHECK(std::abs(value) < 9.2e18, "a number is out of range");
  return static_cast<int64_t>(value);
}

Value filter_int(Call& call) {
  const auto a = call.bind({"value", "default", "base"});
  const Value& value = call.args[0];
  const Value missing = a[1] != nullptr ? *a[1] : Value(int64_t{0});
  need_defined(value);
  if (value.is_integral()) return value.integer();
  if (value.is(Kind::real)) return std::isfinite(value.real()) ? truncated(value.real()) : missing;
  if (!value.is(Kind::text)) return missing;
  int64_t base = whole_or(a[2], 10, "int");
  NIBBLE_CHECK(base >= 2 && base <= 36, "int: a base is 2 to 36");
  std::string spelled = value.text().bytes;
  const std::string prefix = base == 16 ? "0x" : base == 8 ? "0o" : base == 2 ? "0b" : "";
  if (!prefix.empty() && spelled.starts_with(prefix)) spelled.erase(0, 2);
  if (const auto number = parsed<int64_t>(spelled, static_cast<int>(base))) return *number;
  const auto real = parsed<double>(spelled, 10);
  return real && std::isfinite(*real) ? truncated(*real) : missing;
}

Value filter_float(Call& call) {
  const auto a = call.bind({"value", "default"});
  const Value& value = call.args[0];
  need_defined(value);
  if (value.is_number()) return value.real();
  if (value.is(Kind::text))
    if (const auto number = parsed<double>(value.text().bytes, 10)) return *number;
  return a[1] != nullptr ? *a[1] : Value(0.0);
}

Value filter_abs(Call& call) {
  call.bind({"x"});
  const Value& value = call.args[0];
  need_defined(value);
  NIBBLE_CHECK(value.is_number(), "abs: expected a number, found a ", type_name(value));
  if (value.is(Kind::real)) return std::abs(value.real());
  NIBBLE_CHECK(value.integer() != INT64_MIN, "a number is out of range");
  return std::abs(value.integer());
}

/// "common" rounds halves to even as Python does, on the decimal digits of the number.
Value filter_round(Call& call) {
  const auto a = call.bind({"value", "precision", "method"});
  const Value& value = call.args[0];
  need_defined(value);
  NIBBLE_CHECK(value.is_number(), "round: expected a number, found a ", type_name(value));
  const int64_t precision = whole_or(a[1], 0, "round");
  const std::string method = present(a[2]) ? text_of(*a[2], "round").bytes : "common";
  NIBBLE_CHECK(std::abs(precision) <= 300, "round: the precision is out of range");
  NIBBLE_CHECK(method == "common" || method == "ceil" || method == "floor",
               "round: the method is common, ceil or floor");
  if (method == "common" && value.is_integral() && precision >= 0) return value.integer();
  if (method == "common" && precision >= 0) {
    char buffer[800];
    const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value.real(), std::chars_format::fixed,
                                   static_cast<int>(precision)).ptr;
    double out = 0;
    std::from_chars(buffer, end, out);
    return out;
  }
  const double scale = std::pow(10.0, static_cast<double>(precision)), scaled = value.real() * scale;
  return (method == "ceil"    ? std::ceil(scaled)
          : method == "floor" ? std::floor(scaled)
                              : std::nearbyint(scaled)) /
         scale;
}

Value filter_format(Call& call) {
  std::vector<Value> rest(call.args.begin() + 1, call.args.end());
  const Value values =
      call.named.empty() ? call.in.make_list(std::move(rest), ListKind::tuple) : dict_value(call.named);
  return call.in.make_text(format_percent(call.in, input_text(call), values));
}

Value filter_tojson(Call& call) {
  const auto a = call.bind({"x", "ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = flag(a[1]);
  style.sort_keys = flag(a[4]);
  if (present(a[2])) {
    const int64_t spaces = a[2]->is(Kind::text) ? 0 : std::max<int64_t>(whole(*a[2], "tojson"), 0);
    NIBBLE_CHECK(spaces <= 64, "tojson: an indent of ", spaces, " is too large");
    style.indent = a[2]->is(Kind::text) ? a[2]->text().bytes : std::string(static_cast<size_t>(spaces), ' ');
    NIBBLE_CHECK(style.indent->size() <= 64, "tojson: the indent is too long");
  }
  if (present(a[3])) {
    const std::vector<Value> both = call.in.elements(*a[3]);
    NIBBLE_CHECK(both.size() == 2, "tojson: expected two separators, found ", both.size());
    style.item_separator = text_of(both[0], "tojson").bytes;
    style.key_separator = text_of(both[1], "tojson").bytes;
    NIBBLE_CHECK(style.item_separator->size() + style.key_separator->size() <= 64, "tojson: a separator is too long");
  }
  return call.in.make_text(to_json(call.args[0], style));
}

Value filter_filesizeformat(Call& call) {
  const auto a = call.bind({"value", "binary"});
  const bool binary = flag(a[1]);
  Call number{call.in, call.name, {call.args[0]}};
  const double bytes = filter_float(number).real();
  const double base = binary ? 1024 : 1000;
  if (bytes == 1) return text_value("1 Byte");
  char out[64];
  if (bytes < base) {
    std::snprintf(out, sizeof(out), "%lld Bytes", static_cast<long long>(bytes));
    return text_value(out);
  }
  constexpr std::string_view letters = "kMGTPEZY";
  double unit = base;
  size_t i = 0;
  while (i + 1 < letters.size() && bytes >= unit * base) unit *= base, ++i;
  std::snprintf(out, sizeof(out), "%.1f %c%s", bytes / unit, binary && i == 0 ? 'K' : letters[i], binary ? "iB" : "B");
  return text_value(out);
}

}  // namespace

std::span<const NamedBuiltin> text_filters() {
  static constexpr NamedBuiltin all[] = {
      {"abs", filter_abs},
      {"capitalize", filter_capitalize},
      {"center", filter_center},
      {"e", filter_escape},
      {"escape", filter_escape},
      {"filesizeformat", filter_filesizeformat},
      {"float", filter_float},
      {"forceescape", filter_forceescape},
      {"format", filter_format},
      {"indent", filter_indent},
      {"int", filter_int},
      {"lower", filter_lower},
      {"replace", filter_replace},
      {"round", filter_round},
      {"safe", filter_safe},
      {"string", filter_string},
      {"title", filter_title},
      {"tojson", filter_tojson},
      {"trim", filter_trim},
      {"truncate", filter_truncate},
      {"upper", filter_upper},
      {"urlencode", filter_urlencode},
      {"wordcount", filter_wordcount},
  };
  return all;
}

}  // namespace nibble::models::jinja
