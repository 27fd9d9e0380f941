// SPDX-License-Identifier: Apache-2.0
#include "models/io/json_text.h"

#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "models/io/metadata.h"
#include "tensor/check.h"

namespace nibble::models {

nlohmann::json parse_json(std::string_view text, const std::string& file) {
  using nlohmann::json;
  constexpr int max_depth = 64;
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const auto check = [&](int depth, json::parse_event_t event, json& value) {
    if (depth > max_depth) fail(file, ": expected at most ", max_depth, " levels of nesting");
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
      fail(file, ": key '", printable(value.get<std::string>()), "' is there twice");
    return true;
  };
  try {
    return json::parse(text, check);
  } catch (const json::parse_error& error) {
    fail(file, ": byte ", error.byte, ": not valid JSON: ", printable(error.what(), 200));
  } catch (const json::exception& error) {
    fail(file, ": not valid JSON: ", printable(error.what(), 200));
  }
}

}  // namespace nibble::models
