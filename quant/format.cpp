// SPDX-License-Identifier: Apache-2.0
#include "quant/format.h"

#include <array>
#include <string>

#include "quant/formats/formats.h"
#include "tensor/check.h"

namespace nibble::quant {

namespace {

constexpr const QuantFormat* format_list[] = {
#define NIBBLE_FORMAT(name) &formats::name,
#define NIBBLE_BLOCK_TYPE(name)
#include "quant/format_list.inc"
#undef NIBBLE_FORMAT
#undef NIBBLE_BLOCK_TYPE
};

constexpr const BlockType* type_list[] = {
#define NIBBLE_FORMAT(name)
#define NIBBLE_BLOCK_TYPE(name) &types::name,
#include "quant/format_list.inc"
#undef NIBBLE_FORMAT
#undef NIBBLE_BLOCK_TYPE
};

}  // namespace

std::span<const QuantFormat* const> all_formats() { return format_list; }

const QuantFormat& find_format(std::string_view name) {
  std::string known;
  for (const QuantFormat* format : format_list) {
    if (format->name == name) return *format;
    known += known.empty() ? "" : ", ";
    known += format->name;
  }
  fail("weight format \"", name, "\": expected one of ", known);
}

std::span<const BlockType* const> all_block_types() { return type_list; }

const BlockType* find_block_type(uint32_t gguf_id) {
  for (const BlockType* type : type_list) {
    if (type->gguf_id == gguf_id) return type;
  }
  return nullptr;
}

size_t packed_bytes(const QuantFormat& format, int64_t n, int64_t k) {
  return panel_geometry(format.layout, n, k).bytes();
}

}  // namespace nibble::quant
