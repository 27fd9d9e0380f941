// SPDX-License-Identifier: Apache-2.0
#include "quant/format.h"

#include <string>
#include <vector>

#include "quant/codes.h"
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

struct MadeFormats {
  std::vector<std::string> names;
  std::vector<QuantFormat> formats;

  MadeFormats() {
    std::vector<QuantLayout> layouts;
    for (const int bits : {1, 2, 3, 4, 5, 6, 7, 8})
      for (const int group : {16, 32, 64, 128})
        for (const ZeroPoint zero : {ZeroPoint::symmetric, ZeroPoint::minimum, ZeroPoint::integer})
          for (const DType scale : {DType::f16, DType::bf16, DType::f32})
            layouts.push_back({.group = static_cast<uint16_t>(group),
                               .bits = static_cast<uint8_t>(bits),
                               .zero_point = zero,
                               .scale = scale});
    for (int book = books::nf4_float; book <= books::e5m2; ++book)
      for (const int group : {0, 32, 64, 128})
        for (const DType product : {DType::f32, DType::f16, DType::bf16})
          layouts.push_back({.group = static_cast<uint16_t>(group),
                             .bits = static_cast<uint8_t>(float_book(book)->bits),
                             .scale = DType::f32,
                             .codebook = static_cast<uint8_t>(book),
                             .product = product});
    names.reserve(layouts.size());
    for (const QuantLayout& l : layouts) {
      if (const FloatBook* book = float_book(l.codebook)) {
        names.push_back(message(book->name, "_", l.group == 0 ? "row" : message("g", l.group),
                                l.product == DType::f32 ? "" : "_to_",
                                l.product == DType::f32 ? "" : nibble::name(l.product)));
        formats.push_back(weight_format(names.back(), l));
        continue;
      }
      names.push_back(message("q", int{l.bits}, "szi"[static_cast<int>(l.zero_point)], "_g", l.group,
                              l.scale == DType::f16 ? "" : l.scale == DType::bf16 ? "_bf16" : "_f32"));
      formats.push_back(weight_format(names.back(), l));
    }
  }
};

const std::vector<QuantFormat>& made_formats() {
  static const MadeFormats made;
  return made.formats;
}

}  // namespace

const QuantFormat& format_of(const QuantLayout& layout) {
  for (const QuantFormat* format : format_list) {
    if (format->layout == layout) return *format;
  }
  for (const QuantFormat& format : made_formats()) {
    if (format.layout == layout) return format;
  }
  fail("weight layout: expected 1 to 8 bits in groups of 16, 32, 64 or 128, or a codebook of floats, found ",
       int{layout.bits}, " bits in groups of ", layout.group);
}

std::span<const QuantFormat* const> all_formats() { return format_list; }

const QuantFormat& find_format(std::string_view name) {
  std::string known;
  for (const QuantFormat* format : format_list) {
    if (format->name == name) return *format;
    known += known.empty() ? "" : ", ";
    known += format->name;
  }
  for (const QuantFormat& format : made_formats()) {
    if (format.name == name) return format;
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
