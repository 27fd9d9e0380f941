// SPDX-License-Identifier: Apache-2.0
// Block types of our own: every width from 1 to 8 bits, symmetric or with a minimum, and the codebooks nf4 and fp4, in
// groups of 16 to 128, and the floats of 8 bits e4m3 and e5m2, in groups of 32 to 128, with scales of f16, bf16, f32 or
// fp8. A block is a group, at least 32 weights: the scales of its groups, their minima if they have any, then the codes
// as bit planes from wide to narrow, the first with the low bits. A plane of b bits has n b / 8 bytes, n the weights of
// the block; byte i holds those of codes i, i + n b / 8, i + 2 n b / 8, ... from its low bits up.
//
// A scale of fp8 is an E4M3 float times a power of two that makes weights of 0.001 to 28 representable, fp8_unit;
// minima beside it are f16. Either is a number of f16, so panels hold f16, and f32 for floats of 8 bits.
//
//   q4_g64    0   2                          34
//             | d | u32 u0 | ... | u63 u31 |             d f16; each byte: high nibble, low nibble
//   q4_g128   0   2                          66
//             | d | u64 u0 | ... | u127 u63 |
//   q6_g64    0   2                     34                             50
//             | d | low four bits, as | u48 u32 u16 u0 | ... |         d f16; then the upper two bits of four codes
//             |   | in q4_g64         |                      |         a byte
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "quant/codes.h"
#include "quant/formats/formats.h"
#include "tensor/check.h"

namespace nibble::quant {

namespace {

/// QuantLayout::scale of a block: that of its scales.
constexpr DType fp8 = DType::u8;

constexpr DType minimum_type(const QuantLayout& layout) { return layout.scale == fp8 ? DType::f16 : layout.scale; }

/// 2^-4 over the power of two that is no smaller than any number a code stands for.
constexpr float fp8_unit(const QuantLayout& layout) {
  const int largest = layout.codebook == books::nf4    ? 128
                      : layout.codebook == books::fp4  ? 16
                      : layout.codebook == books::e4m3 ? 512
                      : layout.codebook == books::e5m2 ? 65536
                                                       : 1 << (layout.bits - 1);
  return 1.0f / static_cast<float>(16 * largest);
}

float load_scale(const QuantLayout& layout, DType type, const std::byte* p) {
  const FloatBook& book = *float_book(books::e4m3);
  if (type == fp8) return book.value(load<uint8_t>(p)) * book.unit * fp8_unit(layout);
  if (type == DType::f32) return load<float>(p);
  return type == DType::f16 ? load_f16(p) : bf16_to_f32(load<uint16_t>(p));
}

/// A scale beyond the largest of fp8 becomes that.
void store_scale(const QuantLayout& layout, DType type, float value, std::byte* p) {
  if (type == fp8) return store(p, nearest_code(*float_book(books::e4m3), value / fp8_unit(layout)));
  if (type == DType::f32) return store(p, value);
  store(p, type == DType::f16 ? f32_to_f16(value) : f32_to_bf16(value));
}

template <QuantLayout layout>
float round_stored(float scale) {
  // beyond by half a step of the largest: nothing like it can be held
  if (layout.scale == fp8 && std::fabs(scale) > 464 * fp8_unit(layout)) return std::copysign(INFINITY, scale);
  std::byte bytes[4];
  store_scale(layout, layout.scale, scale, bytes);
  return load_scale(layout, layout.scale, bytes);
}

constexpr int elements_of(const QuantLayout& layout) { return std::max<int>(layout.group, block_k); }

constexpr size_t bytes_of(const QuantLayout& layout) {
  const size_t minimum = layout.zero_point == ZeroPoint::minimum ? element_bytes(minimum_type(layout)) : 0;
  const auto elements = static_cast<size_t>(elements_of(layout));
  return elements / layout.group * (element_bytes(layout.scale) + minimum) + elements * layout.bits / 8;
}

void decode_native(const QuantLayout& layout, const std::byte* p, BlockCodes& out) {
  const int elements = elements_of(layout), groups = elements / layout.group;
  const DType minimum = minimum_type(layout);
  for (int g = 0; g < groups; ++g, p += element_bytes(layout.scale)) out.scale[g] = load_scale(layout, layout.scale, p);
  for (int g = 0; layout.zero_point == ZeroPoint::minimum && g < groups; ++g, p += element_bytes(minimum))
    out.minimum[g] = load_scale(layout, minimum, p);
  std::fill(out.codes, out.codes + elements, uint8_t{0});
  int shift = 0;
  for (const int width : {8, 4, 2, 1}) {
    if ((layout.bits & width) == 0) continue;
    const int bytes = elements * width / 8, mask = (1 << width) - 1;
    for (int s = 0; s < 8 / width; ++s) {
      uint8_t* codes = out.codes + s * bytes;
      for (int i = 0; i < bytes; ++i)
        codes[i] |= static_cast<uint8_t>((static_cast<int>(p[i]) >> (s * width) & mask) << shift);
    }
    p += bytes;
    shift += width;
  }
}

void write_native(const QuantLayout& layout, const BlockCodes& in, std::byte* p) {
  const int elements = elements_of(layout), groups = elements / layout.group;
  const DType minimum = minimum_type(layout);
  for (int g = 0; g < groups; ++g, p += element_bytes(layout.scale)) store_scale(layout, layout.scale, in.scale[g], p);
  for (int g = 0; layout.zero_point == ZeroPoint::minimum && g < groups; ++g, p += element_bytes(minimum))
    store_scale(layout, minimum, in.minimum[g], p);
  int shift = 0;
  for (const int width : {8, 4, 2, 1}) {
    if ((layout.bits & width) == 0) continue;
    const int bytes = elements * width / 8, mask = (1 << width) - 1;
    for (int i = 0; i < bytes; ++i) {
      int byte = 0;
      for (int s = 0; s < 8 / width; ++s) byte |= (in.codes[i + s * bytes] >> shift & mask) << (s * width);
      p[i] = static_cast<std::byte>(byte);
    }
    p += bytes;
    shift += width;
  }
}

/// A book of floats, whose panels hold scales of f32 whatever the file's are.
constexpr bool is_float(const QuantLayout& layout) { return layout.codebook >= books::nf4_float; }

constexpr QuantLayout panel_layout(QuantLayout layout) {
  if (is_float(layout)) layout.scale = DType::f32;
  if (layout.scale == fp8) layout.scale = DType::f16;
  return layout;
}

template <QuantLayout layout>
void write_codes_of(const BlockCodes& in, std::byte* block) {
  write_native(layout, in, block);
}

/// To nearest, the scale from the largest magnitude. One of fp8 may be too small for the group's peak, which then
/// becomes the largest number: no farther off than a half step of numbers of its size.
template <QuantLayout layout>
void encode_floats(const float* in, std::byte* block) {
  BlockCodes codes{};
  QuantLayout numbers = layout;
  if (layout.scale == fp8) numbers.scale = DType::f32;
  quantize_numbers(numbers, in, 1, layout.group, codes.codes, codes.scale, codes.minimum);
  if (layout.scale == fp8) {
    const float scale = codes.scale[0] = round_stored<layout>(codes.scale[0]);
    NIBBLE_CHECK(std::isfinite(scale), "weights need a scale beyond fp8");
    for (int i = 0; i < layout.group; ++i)
      codes.codes[i] = nearest_code(*float_book(layout.codebook), scale != 0 ? in[i] / scale : 0.0f);
  }
  write_native(layout, codes, block);
}

/// A format without sub-groups whose groups do not span the row, and its block type.
template <QuantLayout layout>
constexpr BlockType native(std::string_view name, const QuantFormat& format) {
  return {.name = name,
          .gguf_id = native_gguf_id,
          .block_elements = elements_of(layout),
          .block_bytes = bytes_of(layout),
          .format = &format,
          .decode = [](const std::byte* block, BlockCodes& out) { decode_native(layout, block, out); },
          .encode = is_float(layout) ? encode_floats<layout> : nullptr,
          .write = write_codes_of<layout>,
          .round_scale = layout.scale != panel_layout(layout).scale ? round_stored<layout> : nullptr};
}

constexpr uint16_t groups[] = {16, 32, 64, 128};
constexpr DType scales[] = {DType::f16, DType::bf16, DType::f32, fp8};
/// Symmetric and minimum of 1 to 8 bits, then the codebooks, of which those of floats have no groups of 16.
constexpr uint8_t codebooks[] = {books::nf4, books::fp4, books::e4m3, books::e5m2};
constexpr int kinds = 8 + 8 + static_cast<int>(std::size(codebooks));
constexpr size_t family_size = kinds * std::size(groups) * std::size(scales);

constexpr QuantLayout layout_at(size_t index) {
  QuantLayout layout{.group = groups[index % std::size(groups)],
                     .scale = scales[index / std::size(groups) % std::size(scales)]};
  const auto kind = static_cast<int>(index / std::size(groups) / std::size(scales));
  if (kind >= 16) {
    layout.codebook = codebooks[kind - 16];
    if (is_float(layout)) layout.bits = 8;
    return layout;
  }
  layout.bits = static_cast<uint8_t>(kind % 8 + 1);
  layout.zero_point = kind < 8 ? ZeroPoint::symmetric : ZeroPoint::minimum;
  return layout;
}

std::string name_of(const QuantLayout& l) {
  std::string stem = is_float(l)        ? std::string(float_book(l.codebook)->name)
                     : l.codebook != 0 ? std::string(panel_codebook(l.codebook).name)
                                       : message("q", int{l.bits}, l.zero_point == ZeroPoint::minimum ? "z" : "s");
  return message(stem, "_g", l.group, l.scale == DType::f16 ? "" : "_",
                 l.scale == DType::f16 ? ""
                 : l.scale == fp8      ? "fp8"
                                       : name(l.scale));
}

struct Family {
  std::vector<std::string> names;
  std::vector<QuantFormat> formats;
  std::vector<BlockType> types;
  std::vector<const BlockType*> all;

  Family() {
    names.reserve(family_size);
    formats.reserve(family_size);
    types.reserve(family_size);
    add_types(std::make_index_sequence<family_size>());
    for (const BlockType& type : types) all.push_back(&type);
  }

 private:
  template <size_t... index>
  void add_types(std::index_sequence<index...>) {
    // not a fold expression: compilers limit how deep those nest
    constexpr void (Family::*adders[])() = {&Family::add<layout_at(index)>...};
    for (const auto adder : adders) (this->*adder)();
  }

  template <QuantLayout layout>
  void add() {
    if constexpr (is_float(layout) && layout.group < block_k)
      return;
    else
      add_type<layout>();
  }

  template <QuantLayout layout>
  void add_type() {
    const std::string full = names.emplace_back(name_of(layout));
    // the format of the list where it has one
    const QuantFormat* listed = nullptr;
    for (const QuantFormat* format : all_formats())
      if (format->layout == panel_layout(layout)) listed = format;
    // scales of fp8 come after those of f16
    for (const QuantFormat& format : formats)
      if (layout.scale == fp8 && format.layout == panel_layout(layout)) listed = &format;
    if (is_float(layout)) listed = &format_of(panel_layout(layout));
    formats.push_back(listed != nullptr ? *listed : weight_format(names.back(), layout));
    std::string_view short_name = names.back();
    for (const auto& [brief, name] : short_names)
      if (full == name) short_name = brief;
    types.push_back(native<layout>(short_name, listed != nullptr ? *listed : formats.back()));
  }

 public:
  /// Names of types that differ from their format's.
  static constexpr std::pair<std::string_view, std::string_view> short_names[] = {
      {"q4_g64", "q4s_g64"}, {"q4_g128", "q4s_g128"}, {"q6_g64", "q6s_g64"}};
};

const Family& family() {
  static const Family instance;
  return instance;
}

}  // namespace

std::span<const BlockType* const> native_block_types() { return family().all; }

const BlockType* find_native_type(std::string_view name) {
  for (const BlockType* type : native_block_types())
    if (type->name == name || type->format->name == name) return type;
  return nullptr;
}

}  // namespace nibble::quant
