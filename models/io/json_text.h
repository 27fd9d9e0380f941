// SPDX-License-Identifier: Apache-2.0
// Untrusted JSON text, read strictly. Internal to models/.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace nibble::models {

/// Throws Error naming `file` and the byte for what is not JSON (or not UTF-8), a key that is twice in one object, and
/// more than 64 levels of nesting.
nlohmann::json parse_json(std::string_view text, const std::string& file);

}  // namespace nibble::models
