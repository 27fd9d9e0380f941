// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace nibble::models {

/// RFC 4648, padded or not. Throws Error for other characters.
std::string base64_decoded(std::string_view text);

}  // namespace nibble::models
