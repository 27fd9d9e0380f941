// SPDX-License-Identifier: Apache-2.0
// "%s" % value and "{}".format(value).
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "models/text/jinja/arguments.h"
#include "tensor/check.h"

namespace nibble::models::jinja {

namespace {

using Kind = Value::Kind;

/// What follows the colon of "{:>8.2f}", and what stands between % and the letter.
struct Spec {
  std::string fill = " ";
  char align = '\0', sign = '\0', type = '\0';
  bool alternate = false, zero = false, commas = false;
  int width = 0, precision = -1;
};

int number(std::string_view text, size_t& at) {
  int out = 0;
  for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
    out = out * 10 + (text[at] - '0');
    NIBBLE_CHECK(out <= 10000, "format: a width or precision is too large");
  }
  return out;
}

Spec parse_spec(std::string_view text) {
  Spec spec;
  size_t at = 0;
  const auto is_align = [&](size_t i) {
    return i < text.size() && std::string_view("<>^=").find(text[i]) != std::string_view::npos;
  };
  const size_t first = text.empty() ? 0 : char_length(text, 0);
  if (!text.empty() && is_align(first)) {
    spec.fill = text.substr(0, first);
    spec.align = text[first];
    at = first + 1;
  } else if (is_align(0)) {
    spec.align = text[at++];
  }
  const auto next = [&](char wanted) { return at < text.size() && text[at] == wanted ? ++at, true : false; };
  if (at < text.size() && std::string_view("+- ").find(text[at]) != std::string_view::npos) spec.sign = text[at++];
  spec.alternate = next('#');
  spec.zero = next('0');
  spec.width = number(text, at);
  spec.commas = next(',');
  if (next('.')) spec.precision = number(text, at);
  if (at < text.size()) spec.type = text[at++];
  NIBBLE_CHECK(at == text.size(), "format: cannot read the specification ", in_quotes(text));
  return spec;
}

Text padded(Text text, const Spec& spec, char align) {
  const auto count = static_cast<int>(char_count(text.bytes));
  if (spec.width <= count) return text;
  const int missing = spec.width - count, left = align == '>' ? missing : align == '^' ? missing / 2 : 0;
  Text out;
  for (int i = 0; i < left; ++i) append(out, spec.fill);
  append(out, text);
  for (int i = left; i < missing; ++i) append(out, spec.fill);
  return out;
}

std::string digits_of(const Value& value, const Spec& spec) {
  const char type = spec.type;
  if (value.is_integral() && (type == '\0' || std::string_view("dixXobcn").find(type) != std::string_view::npos)) {
    const bool negative = value.integer() < 0;
    const uint64_t magnitude =
        negative ? 0 - static_cast<uint64_t>(value.integer()) : static_cast<uint64_t>(value.integer());
    if (type == 'c') {
      NIBBLE_CHECK(!negative && magnitude < 0x110000, "format: there is no character ", value.integer());
      std::string out;
      append_code_point(out, static_cast<int32_t>(magnitude));
      return out;
    }
    const int base = type == 'x' || type == 'X' ? 16 : type == 'o' ? 8 : type == 'b' ? 2 : 10;
    char buffer[80];
    std::string out(buffer, std::to_chars(buffer, buffer + sizeof(buffer), magnitude, base).ptr);
    if (type == 'X') out = to_upper(out);
    if (spec.alternate && base != 10)
      out = message(base == 16 ? (type == 'X' ? "0X" : "0x") : base == 8 ? "0o" : "0b", out);
    return message(negative ? "-" : "", out);
  }
  NIBBLE_CHECK(type == '\0' || std::string_view("eEfFgG%").find(type) != std::string_view::npos,
               "format: '", type, "' does not fit a ", type_name(value));
  if (type == '\0' && spec.precision < 0) return repr(value.real());
  const double real = type == '%' ? 100 * value.real() : value.real();
  const char pattern[] = {'%', '.', '*', type == '%' ? 'f' : type == '\0' ? 'g' : type, '\0'};
  std::string out(400, '\0');
  const int precision = std::min(spec.precision < 0 ? 6 : spec.precision, 60);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  const int length = std::snprintf(out.data(), out.size(), pattern, precision, real);
#pragma GCC diagnostic pop
  out.resize(std::min(static_cast<size_t>(std::max(length, 0)), out.size() - 1));
  if (type == '%') out.push_back('%');
  return out;
}

Text formatted_number(const Value& value, const Spec& spec) {
  std::string out = digits_of(value, spec);
  const bool negative = out.starts_with('-');
  const char* sign = negative ? "-" : spec.sign == '+' ? "+" : spec.sign == ' ' ? " " : "";
  if (negative) out.erase(0, 1);
  if (spec.commas)
    for (size_t end = std::min(out.find_first_not_of("0123456789"), out.size()); end > 3;)
      out.insert(out.begin() + static_cast<std::ptrdiff_t>(end -= 3), ',');
  const auto length = static_cast<int>(std::string_view(sign).size() + out.size());
  if ((spec.zero || spec.align == '=') && spec.align != '<' && spec.align != '>' && spec.align != '^' &&
      length < spec.width)
    out = message(std::string(static_cast<size_t>(spec.width - length), spec.zero ? '0' : spec.fill[0]), out);
  return padded({message(sign, out)}, spec, spec.align == '\0' ? '>' : spec.align);
}

Text formatted(const Value& value, const Spec& spec) {
  const bool plain_bool = value.is(Kind::boolean) && spec.type == '\0';
  if (value.is_number() && !plain_bool && spec.type != 's') return formatted_number(value, spec);
  NIBBLE_CHECK(spec.type == '\0' || spec.type == 's', "format: '", spec.type, "' does not fit a ", type_name(value));
  Text text = str(value);
  if (spec.precision >= 0) text = part(text, 0, char_offset(text.bytes, static_cast<size_t>(spec.precision)));
  return padded(std::move(text), spec, spec.align == '\0' ? '<' : spec.align);
}

}  // namespace

Text format_percent(Interpreter& in, const Text& format, const Value& values) {
  const bool tuple = values.is(Kind::list) && values.list().kind == ListKind::tuple;
  size_t taken = 0;
  const auto next = [&]() -> Value {
    NIBBLE_CHECK(taken < (tuple ? values.list().items.size() : 1), "'%': there are fewer values than places for them");
    return tuple ? values.list().items[taken++] : (++taken, values);
  };
  Text out;
  const std::string_view text = format.bytes;
  for (size_t at = 0; at < text.size();) {
    const size_t mark = std::min(text.find('%', at), text.size());
    append(out, part(format, at, mark));
    if (mark == text.size()) break;
    at = mark + 1;
    Spec spec;
    std::optional<Value> named;
    if (at < text.size() && text[at] == '(') {
      const size_t end = text.find(')', at);
      NIBBLE_CHECK(end != std::string_view::npos && values.is(Kind::dict), "'%(name)s' needs a dict");
      named = in.item(values, text_value(text.substr(at + 1, end - at - 1)));
      need_defined(*named);
      taken = 1;
      at = end + 1;
    }
    for (; at < text.size() && std::string_view("-+ 0#").find(text[at]) != std::string_view::npos; ++at) {
      if (text[at] == '-') spec.align = '<';
      if (text[at] == '0') spec.zero = true;
      if (text[at] == '+' || text[at] == ' ') spec.sign = text[at];
      if (text[at] == '#') spec.alternate = true;
    }
    spec.width = number(text, at);
    if (at < text.size() && text[at] == '.') spec.precision = number(text, ++at);
    NIBBLE_CHECK(at < text.size(), "'%': the format is not complete");
    spec.type = text[at++];
    if (spec.type == '%') {
      append(out, "%");
      continue;
    }
    const Value value = named ? *named : next();
    if (spec.type == 's' || spec.type == 'r') {
      const Value shown = spec.type == 'r' ? Value(derived(repr(value), str(value))) : Value(str(value));
      spec.type = 's';
      append(out, padded(formatted(shown, {.precision = spec.precision}), spec, spec.align == '<' ? '<' : '>'));
    } else {
      NIBBLE_CHECK(value.is_number(), "'%", spec.type, "' needs a number, found a ", type_name(value));
      const bool integer = std::string_view("dixXo").find(spec.type) != std::string_view::npos;
      append(out, formatted_number(integer && value.is(Kind::real)
                                       ? Value(static_cast<int64_t>(std::clamp(value.real(), -9e18, 9e18)))
                                       : value,
                                   spec));
    }
    in.spend(1 + out.bytes.size() / 256);
    NIBBLE_CHECK(out.bytes.size() <= in.options().max_output_bytes, "'%': the result is too long");
  }
  NIBBLE_CHECK(!tuple || taken == values.list().items.size(), "'%': there are more values than places for them");
  return out;
}

namespace {

/// "0.name[key]" or "name", of the arguments after the first.
Value field(Call& call, std::string_view path, size_t& next) {
  const size_t end = std::min(path.find_first_of(".["), path.size());
  const std::string first(path.substr(0, end));
  const bool digits = !first.empty() && first.size() < 6 && first.find_first_not_of("0123456789") == std::string::npos;
  Value value;
  if (first.empty() || digits) {
    const size_t index = first.empty() ? next++ : static_cast<size_t>(std::stoul(first));
    NIBBLE_CHECK(index + 1 < call.args.size(), "format: there is no value ", index);
    value = call.args[index + 1];
  } else {
    const auto found =
        std::find_if(call.named.begin(), call.named.end(), [&](const auto& item) { return item.first == first; });
    NIBBLE_CHECK(found != call.named.end(), "format: there is no value '", first, "'");
    value = found->second;
  }
  for (std::string_view rest = path.substr(end); !rest.empty();) {
    const bool item = rest[0] == '[';
    const size_t stop = std::min(item ? rest.find(']') : rest.find_first_of(".[", 1), rest.size());
    const std::string name(rest.substr(1, stop - 1));
    const bool index =
        item && !name.empty() && name.size() < 6 && name.find_first_not_of("0123456789") == std::string::npos;
    value = index ? call.in.item(value, Value(static_cast<int64_t>(std::stoll(name))))
                  : call.in.item(value, text_value(name));
    need_defined(value);
    rest.remove_prefix(std::min(stop + (item ? 1 : 0), rest.size()));
  }
  return value;
}

}  // namespace

Text format_braces(Call& call) {
  const Text format = call.args[0].text();
  const std::string_view text = format.bytes;
  Text out;
  size_t next = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t brace = std::min(text.find_first_of("{}", at), text.size());
    append(out, part(format, at, brace));
    if (brace == text.size()) break;
    if (text.substr(brace).starts_with(text[brace] == '{' ? "{{" : "}}")) {
      append(out, part(format, brace, brace + 1));
      at = brace + 2;
      continue;
    }
    const size_t end = text.find('}', brace);
    NIBBLE_CHECK(text[brace] == '{' && end != std::string_view::npos, "format: a single brace");
    std::string_view inside = text.substr(brace + 1, end - brace - 1), spec;
    NIBBLE_CHECK(inside.find('{') == std::string_view::npos, "format: braces inside of braces");
    if (const size_t colon = inside.find(':'); colon != std::string_view::npos) {
      spec = inside.substr(colon + 1);
      inside = inside.substr(0, colon);
    }
    char conversion = '\0';
    if (inside.size() >= 2 && inside[inside.size() - 2] == '!') {
      conversion = inside.back();
      inside.remove_suffix(2);
    }
    Value value = field(call, inside, next);
    if (conversion == 'r') value = Value(derived(repr(value), str(value)));
    if (conversion == 's') value = Value(str(value));
    append(out, formatted(value, parse_spec(spec)));
    call.in.spend(1 + out.bytes.size() / 256);
    NIBBLE_CHECK(out.bytes.size() <= call.in.options().max_output_bytes, "format: the result is too long");
    at = end + 1;
  }
  return out;
}

}  // namespace nibble::models::jinja
