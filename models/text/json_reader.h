// SPDX-License-Identifier: Apache-2.0
// A JSON value that knows which file and key it came from, for errors. For .cpp files only: it needs a large header.
#pragma once

#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "tensor/check.h"

namespace nibble::models {

/// The whole file. Throws Error naming it.
inline std::string read_whole_file(const std::string& path, size_t most = size_t{1} << 30) {
  std::ifstream in(path, std::ios::binary);
  NIBBLE_CHECK(in, path, ": cannot be opened");
  in.seekg(0, std::ios::end);
  const auto size = in.tellg();
  NIBBLE_CHECK(size >= 0 && static_cast<uint64_t>(size) <= most, path, ": has ", static_cast<int64_t>(size),
               " bytes; expected a file of at most ", most);
  std::string out(static_cast<size_t>(size), '\0');
  in.seekg(0);
  in.read(out.data(), size);
  NIBBLE_CHECK(in.gcount() == size, path, ": only ", in.gcount(), " of ", static_cast<int64_t>(size),
               " bytes could be read");
  return out;
}

inline nlohmann::json parse_json_file(const std::string& path) {
  const std::string text = read_whole_file(path);
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    fail(path, ": not JSON: ", error.what());
  }
}

class JsonView {
 public:
  JsonView(const nlohmann::json& value, const std::string& file, std::string where)
      : value_(&value), file_(&file), where_(std::move(where)) {}

  const nlohmann::json& raw() const { return *value_; }
  const std::string& where() const { return where_; }
  bool is_null() const { return value_->is_null(); }
  bool is_object() const { return value_->is_object(); }
  bool is_array() const { return value_->is_array(); }
  bool is_string() const { return value_->is_string(); }

  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    fail(*file_, ": ", where_.empty() ? "the file" : where_, ": ", parts...);
  }

  /// Missing and null count as the same.
  std::optional<JsonView> find(std::string_view key) const {
    if (!value_->is_object()) refuse("expected an object");
    const auto found = value_->find(key);
    if (found == value_->end() || found->is_null()) return std::nullopt;
    return JsonView(*found, *file_, where_.empty() ? std::string(key) : where_ + '.' + std::string(key));
  }
  JsonView need(std::string_view key) const {
    const auto found = find(key);
    if (!found) refuse("'", key, "' is missing");
    return *found;
  }
  size_t size() const { return value_->size(); }
  JsonView at(size_t index) const {
    return JsonView(value_->at(index), *file_, where_ + '[' + std::to_string(index) + ']');
  }
  void check_array() const {
    if (!value_->is_array()) refuse("expected an array");
  }
  const std::string& text() const {
    if (!value_->is_string()) refuse("expected a string");
    return value_->get_ref<const std::string&>();
  }
  bool flag() const {
    if (!value_->is_boolean()) refuse("expected true or false");
    return value_->get<bool>();
  }
  double number() const {
    if (!value_->is_number()) refuse("expected a number");
    return value_->get<double>();
  }
  int64_t integer(int64_t low, int64_t high) const {
    const bool fits = value_->is_number_integer() &&
                      !(value_->is_number_unsigned() &&
                        value_->get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
    const int64_t out = fits ? value_->get<int64_t>() : low - 1;
    if (!fits || out < low || out > high) refuse("expected an integer from ", low, " to ", high);
    return out;
  }

  bool flag(std::string_view key, bool fallback) const {
    const auto found = find(key);
    return found ? found->flag() : fallback;
  }
  std::string text(std::string_view key, std::string_view fallback) const {
    const auto found = find(key);
    return found ? found->text() : std::string(fallback);
  }
  /// The file named in front of errors that know no file.
  template <class Work>
  auto guard(const Work& work) const {
    try {
      return work();
    } catch (const Error& error) {
      const std::string what = error.what();
      if (what.find(*file_) != std::string::npos) throw;
      refuse(what);
    }
  }

 private:
  const nlohmann::json* value_;
  const std::string* file_;
  std::string where_;
};

}  // namespace nibble::models
