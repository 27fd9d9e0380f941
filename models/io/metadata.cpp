// SPDX-License-Identifier: Apache-2.0
#include "models/io/metadata.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include <utf8proc.h>

#include "tensor/check.h"

namespace nibble::models {

using nlohmann::json;

std::string printable(std::string_view text, size_t limit) {
  std::string out;
  while (!text.empty()) {
    utf8proc_int32_t code = 0;
    const auto left = static_cast<utf8proc_ssize_t>(text.size());
    utf8proc_ssize_t size = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), left, &code);
    const bool shown = size > 0 && code >= 0x20 && !(code >= 0x7f && code < 0xa0);
    if (size <= 0) size = 1;
    if (out.size() + static_cast<size_t>(size) > limit) return out + "...";
    if (shown) out.append(text.substr(0, static_cast<size_t>(size)));
    else out += '?';
    text.remove_prefix(static_cast<size_t>(size));
  }
  return out;
}

namespace {

/// Calls visit(key) for each of "a|b|c" until it returns a pointer.
template <class Visit>
const json* first_of(std::string_view keys, const Visit& visit) {
  while (true) {
    const size_t bar = keys.find('|');
    if (const json* found = visit(keys.substr(0, bar))) return found;
    if (bar == std::string_view::npos) return nullptr;
    keys.remove_prefix(bar + 1);
  }
}

const json* member(const json& object, const std::string& key) {
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

const json* nested_member(const json& root, std::string_view key) {
  const json* at = &root;
  while (at->is_object()) {
    const size_t dot = key.find('.');
    const json* next = member(*at, std::string(key.substr(0, dot)));
    if (next == nullptr || dot == std::string_view::npos) return next;
    at = next;
    key.remove_prefix(dot + 1);
  }
  return nullptr;
}

std::string shown(const json& value) {
  const std::string text = printable(value.dump(-1, ' ', false, json::error_handler_t::replace), 60);
  return text + " (" + (value.is_number_float() ? "float" : value.is_number() ? "integer" : value.type_name()) + ")";
}

[[noreturn]] void wrong(const std::string& file, std::string_view keys, const std::string& expected,
                        const json& found) {
  fail(file, ": key '", keys, "': expected ", expected, ", found ", shown(found));
}

std::string range(double low, double high) { return message("between ", low, " and ", high); }

}  // namespace

Metadata::Metadata(Source source, std::string file, std::string prefix, json values)
    : source_(source),
      file_(std::move(file)),
      prefix_(std::move(prefix)),
      values_(std::make_unique<json>(std::move(values))) {
  NIBBLE_CHECK(values_->is_object(), file_, ": expected an object of keys and values, found ", values_->type_name());
}
Metadata::~Metadata() = default;
Metadata::Metadata(Metadata&&) noexcept = default;
Metadata& Metadata::operator=(Metadata&&) noexcept = default;

const json* Metadata::find(std::string_view keys) const {
  return first_of(keys, [&](std::string_view key) -> const json* {
    const json* found = nullptr;
    if (!prefix_.empty()) found = member(*values_, prefix_ + "." + std::string(key));
    if (found == nullptr) found = member(*values_, std::string(key));
    if (found == nullptr && source_ == Source::hugging_face) found = nested_member(*values_, key);
    for (const SetKey& item : set_)
      if (item.value == found) item.read = true;
    return found;
  });
}

void Metadata::set(std::string_view assignment) {
  const size_t equals = assignment.find('=');
  NIBBLE_CHECK(equals != std::string_view::npos && equals > 0, "expected KEY=VALUE, found '", printable(assignment),
               "'");
  const std::string key(assignment.substr(0, equals)), text(assignment.substr(equals + 1));
  json value = json::parse(text, nullptr, false);
  if (!value.is_number() && !value.is_boolean()) value = text;
  const bool whole = prefix_.empty() || values_->contains(key) || key.starts_with(prefix_ + ".");
  json& place = (*values_)[whole ? key : prefix_ + "." + key];
  place = std::move(value);
  set_.push_back({key, &place});
}

void Metadata::check_set_keys() const {
  for (const SetKey& item : set_)
    NIBBLE_CHECK(item.read, file_, ": key '", printable(item.key),
                 "' was set, but this architecture reads no such key");
}

bool Metadata::has(std::string_view keys) const { return find(keys) != nullptr; }

int64_t Metadata::need_int(std::string_view keys, int64_t low, int64_t high) const {
  const json* value = find(keys);
  if (value == nullptr) fail(file_, ": key '", keys, "' is missing: expected an integer");
  const auto expected = [&] { return message("an integer between ", low, " and ", high); };
  int64_t number = 0;
  if (value->is_number_unsigned()) {
    const auto wide = value->get<uint64_t>();
    if (wide > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) wrong(file_, keys, expected(), *value);
    number = static_cast<int64_t>(wide);
  } else if (value->is_number_integer()) {
    number = value->get<int64_t>();
  } else if (source_ == Source::hugging_face && value->is_number_float() &&
             std::nearbyint(value->get<double>()) == value->get<double>() && std::fabs(value->get<double>()) < 0x1p53) {
    number = static_cast<int64_t>(value->get<double>());
  } else {
    wrong(file_, keys, expected(), *value);
  }
  if (number < low || number > high) wrong(file_, keys, expected(), *value);
  return number;
}

int64_t Metadata::get_int(std::string_view keys, int64_t fallback, int64_t low, int64_t high) const {
  return has(keys) ? need_int(keys, low, high) : fallback;
}

double Metadata::need_float(std::string_view keys, double low, double high) const {
  const json* value = find(keys);
  if (value == nullptr) fail(file_, ": key '", keys, "' is missing: expected a number");
  if (!value->is_number()) wrong(file_, keys, "a number", *value);
  const auto number = value->get<double>();
  // Written so that NaN fails.
  if (!(number >= low && number <= high)) {
    if (!std::isfinite(number))
      fail(file_, ": key '", keys, "': expected a number ", range(low, high), ", found ", number);
    wrong(file_, keys, "a number " + range(low, high), *value);
  }
  return number;
}

double Metadata::get_float(std::string_view keys, double fallback, double low, double high) const {
  return has(keys) ? need_float(keys, low, high) : fallback;
}

bool Metadata::get_bool(std::string_view keys, bool fallback) const {
  const json* value = find(keys);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) wrong(file_, keys, "true or false", *value);
  return value->get<bool>();
}

std::string Metadata::need_string(std::string_view keys) const {
  const json* value = find(keys);
  if (value == nullptr) fail(file_, ": key '", keys, "' is missing: expected a string");
  if (!value->is_string()) wrong(file_, keys, "a string", *value);
  return value->get<std::string>();
}

std::string Metadata::get_string(std::string_view keys, std::string_view fallback) const {
  return has(keys) ? need_string(keys) : std::string(fallback);
}

}  // namespace nibble::models
