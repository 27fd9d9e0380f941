// SPDX-License-Identifier: Apache-2.0
// Names of all tensor types that GGUF has had, supported or not (ggml.h). Internal to models/io.
#pragma once

#include <cstdint>
#include <string_view>

namespace nibble::models {

struct GgufTypeName {
  std::string_view name;  ///< empty: no such type
  bool removed = false;   ///< no longer written or read by ggml
};
GgufTypeName gguf_type_name(uint32_t id);

}  // namespace nibble::models
