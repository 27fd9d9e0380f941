// SPDX-License-Identifier: Apache-2.0
// Names of all tensor types that GGUF has had, supported or not (ggml.h). Internal to models/io.
#pragma once

#include <cstdint>
#include <string_view>

#include "quant/format.h"

namespace nibble::models {

struct GgufTypeName {
  std::string_view name;  ///< empty: no such type
  bool removed = false;   ///< no longer written or read by ggml
};
GgufTypeName gguf_type_name(uint32_t id);

/// How plain numbers that are no block type of quant/ stand in a file that is written: f64, i8, i16, i32, i64, else
/// nullptr.
const quant::BlockType* gguf_plain_type(std::string_view name);

}  // namespace nibble::models
