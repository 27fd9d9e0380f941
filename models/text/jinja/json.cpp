// SPDX-License-Identifier: Apache-2.0
// JSON in and out, out as Python's json.dumps writes it.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "models/text/jinja/value.h"
#include "tensor/check.h"

namespace nibble::models::jinja {

namespace {

using Json = nlohmann::ordered_json;

Value from_json(const Json& json, bool plain, int depth) {
  NIBBLE_CHECK(depth <= max_value_depth, "JSON is nested more than ", max_value_depth, " deep");
  switch (json.type()) {
    case Json::value_t::boolean:
      return json.get<bool>();
    case Json::value_t::number_integer:
      return json.get<int64_t>();
    case Json::value_t::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return static_cast<double>(json.get<uint64_t>());
      return json.get<int64_t>();
    case Json::value_t::number_float:
      return json.get<double>();
    case Json::value_t::string:
      return plain ? Value(whole_plain(json.get<std::string>())) : Value(json.get<std::string>());
    case Json::value_t::array: {
      std::vector<Value> items;
      for (const Json& item : json) items.push_back(from_json(item, plain, depth + 1));
      return list_value(std::move(items));
    }
    case Json::value_t::object: {
      auto dict = std::make_shared<Dict>();
      for (const auto& [key, item] : json.items())
        dict->set(plain ? Value(whole_plain(key)) : Value(key),
                  from_json(item, plain && !(depth <= 2 && key == "role" && item.is_string()), depth + 1));
      return dict;
    }
    default:
      return None{};
  }
}

void write_text(std::string& out, std::string_view text, bool ensure_ascii) {
  const auto hex = [&](int32_t code) {
    out += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) out += "0123456789abcdef"[code >> shift & 15];
  };
  out += '"';
  for (size_t at = 0; at < text.size(); at += char_length(text, at)) {
    const int32_t code = code_point(text, at);
    constexpr std::string_view special = "\"\\\n\r\t\f\b", letters = "\"\\nrtfb";
    const size_t known = code < 0x80 ? special.find(static_cast<char>(code)) : std::string_view::npos;
    if (known != std::string_view::npos)
      (out += '\\') += letters[known];
    else if (code < 0x20)
      hex(code);
    else if (code < 0x80 || !ensure_ascii)
      out += text.substr(at, char_length(text, at));
    else if (code < 0x10000)
      hex(code);
    else
      hex(0xd800 + ((code - 0x10000) >> 10)), hex(0xdc00 + ((code - 0x10000) & 0x3ff));
  }
  out += '"';
}

class Writer {
 public:
  explicit Writer(const JsonStyle& style)
      : style_(style),
        item_(style.item_separator ? *style.item_separator : style.indent ? "," : ", "),
        key_(style.key_separator ? *style.key_separator : ": ") {}

  std::string out;
  bool plain = false;

  void write(const Value& value, int level) {
    switch (value.kind()) {
      case Value::Kind::none:
        out += "null";
        break;
      case Value::Kind::boolean:
        out += value.boolean() ? "true" : "false";
        break;
      case Value::Kind::integer:
        out += std::to_string(value.integer());
        break;
      case Value::Kind::real:
        write_real(value.real());
        break;
      case Value::Kind::text:
        plain |= !value.text().plain.empty();
        write_text(out, value.text().bytes, style_.ensure_ascii);
        break;
      case Value::Kind::list:
        NIBBLE_CHECK(value.list().kind <= ListKind::tuple, "a ", type_name(value), " cannot be written as JSON");
        write_all(value.list().items.size(), '[', ']', level,
                  [&](size_t i) { write(value.list().items[i], level + 1); });
        break;
      case Value::Kind::dict:
        write_dict(value.dict(), level);
        break;
      default:
        need_defined(value);
        fail("a ", type_name(value), " cannot be written as JSON");
    }
  }

 private:
  void write_real(double value) {
    out += std::isnan(value) ? "NaN" : std::isinf(value) ? (value < 0 ? "-Infinity" : "Infinity") : repr(value);
  }

  template <typename One>
  void write_all(size_t count, char open, char close, int level, const One& one) {
    out += open;
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) out += item_;
      line(level + 1);
      one(i);
    }
    if (count > 0) line(level);
    out += close;
  }

  void line(int level) {
    if (!style_.indent) return;
    out += '\n';
    for (int i = 0; i < level; ++i) out += *style_.indent;
  }

  void write_dict(const Dict& dict, int level) {
    std::vector<const std::pair<Value, Value>*> items;
    for (const auto& item : dict.items) items.push_back(&item);
    if (style_.sort_keys)
      std::stable_sort(items.begin(), items.end(), [](auto* a, auto* b) { return less(a->first, b->first); });
    write_all(items.size(), '{', '}', level, [&](size_t i) {
      const Value& key = items[i]->first;
      NIBBLE_CHECK(!key.is(Value::Kind::list), "a tuple cannot be a key of JSON");
      if (key.is(Value::Kind::text)) {
        write(key, level);
      } else {
        out += '"';
        write(key, level);
        out += '"';
      }
      out += key_;
      write(items[i]->second, level + 1);
    });
  }

  const JsonStyle& style_;
  std::string item_, key_;
};

}  // namespace

Value parse_json(std::string_view text, bool plain) {
  try {
    return from_json(Json::parse(text), plain, 0);
  } catch (const Json::exception& error) {
    fail("JSON: ", error.what());
  }
}

Text to_json(const Value& value, const JsonStyle& style) {
  Writer writer(style);
  writer.write(value, 0);
  return writer.plain ? whole_plain(std::move(writer.out)) : Text{std::move(writer.out)};
}

}  // namespace nibble::models::jinja
