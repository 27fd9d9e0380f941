// SPDX-License-Identifier: Apache-2.0
// Block types of our own, symmetric: a scale and its group's codes, w = d * (u - 2^(bits-1)).
//
//   q4_g64    0   2                          34
//             | d | u32 u0 | ... | u63 u31 |             d f16; each byte: high nibble, low nibble
//   q4_g128   0   2                          66
//             | d | u64 u0 | ... | u127 u63 |
//   q6_g64    0   2                     34                             50
//             | d | low four bits, as | u48 u32 u16 u0 | ... |         d f16; then the upper two bits of four codes
//             |   | in q4_g64         |                      |         a byte
#include <algorithm>

#include "quant/fit.h"
#include "quant/formats/formats.h"

namespace nibble::quant {

namespace {

template <int half>
void decode_nibbles(const std::byte* block, BlockCodes& out) {
  out.scale[0] = load_f16(block);
  for (int j = 0; j < half; ++j) {
    const auto byte = static_cast<uint8_t>(block[2 + j]);
    out.codes[j] = byte & 0x0f;
    out.codes[j + half] = byte >> 4;
  }
}

void decode_six(const std::byte* block, BlockCodes& out) {
  decode_nibbles<32>(block, out);
  for (int j = 0; j < 16; ++j) {
    const auto byte = static_cast<uint8_t>(block[34 + j]);
    for (int s = 0; s < 4; ++s) out.codes[j + 16 * s] |= static_cast<uint8_t>((byte >> (2 * s) & 3) << 4);
  }
}

constexpr BlockType native(std::string_view name, int elements, size_t bytes, const QuantFormat& format,
                           void (*decode)(const std::byte*, BlockCodes&)) {
  return {.name = name, .gguf_id = native_gguf_id, .block_elements = elements, .block_bytes = bytes, .format = &format,
          .decode = decode, .encode = nullptr};
}

constinit const BlockType q4_g64 = native("q4_g64", 64, 34, formats::q4s_g64, decode_nibbles<32>);
constinit const BlockType q4_g128 = native("q4_g128", 128, 66, formats::q4s_g128, decode_nibbles<64>);
constinit const BlockType q6_g64 = native("q6_g64", 64, 50, formats::q6s_g64, decode_six);
constexpr const BlockType* native_types[] = {&q4_g64, &q4_g128, &q6_g64};

}  // namespace

std::span<const BlockType* const> native_block_types() { return native_types; }

const BlockType* find_native_type(std::string_view name) {
  const auto found = std::find_if(std::begin(native_types), std::end(native_types), [&](const BlockType* t) { return t->name == name; });
  return found == std::end(native_types) ? nullptr : *found;
}

void write_native_block(const BlockType& type, const uint8_t* codes, float scale, std::byte* block) {
  const int half = type.block_elements / 2;
  store_f16(block, scale);
  for (int j = 0; j < half; ++j) block[2 + j] = static_cast<std::byte>((codes[j] & 15) | (codes[j + half] & 15) << 4);
  if (type.format->layout.bits == 4) return;
  for (int j = 0; j < 16; ++j) {
    unsigned byte = 0;
    for (int s = 0; s < 4; ++s) byte |= static_cast<unsigned>(codes[j + 16 * s] >> 4) << (2 * s);
    block[34 + j] = static_cast<std::byte>(byte);
  }
}

}  // namespace nibble::quant
