// SPDX-License-Identifier: Apache-2.0
#include "tensor/packed.h"

#include <array>
#include <string>

#include "tensor/check.h"

namespace nibble {

namespace {

constexpr std::array groups = {16, 32, 64, 128};
constexpr std::array offsets = {0, 1, 2, 4, 8, 16, 32, 64, 128};
constexpr std::array widths = {8, 16};

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr size_t align64(size_t bytes) { return (bytes + 63) / 64 * 64; }

ActNeeds needs_in(const QuantFormat& format) {
  return {.group = format.layout.group, .offset = offsets[format.layout.offset], .bits = format.layout.bits};
}

size_t act_bytes(const QuantFormat& format, int64_t m, int64_t k) { return act_regions(needs_in(format), m, k).bytes; }

float value(const std::byte* data, int bits, int64_t index) {
  if (bits == 8) return static_cast<float>(reinterpret_cast<const int8_t*>(data)[index]);
  return static_cast<float>(reinterpret_cast<const int16_t*>(data)[index]);
}

void act_dequantize(const QuantFormat& format, const std::byte* data, int64_t m, int64_t k, int64_t row, int64_t rows,
                    float* out) {
  const ActRegions regions = act_regions(needs_in(format), m, k);
  const int64_t scale_k = act_group(format.layout.group);
  for (int64_t i = row; i < row + rows; ++i) {
    const auto* scales = reinterpret_cast<const float*>(data + regions.scales_offset) + i * regions.scales_per_row;
    for (int64_t j = 0; j < k; ++j)
      *out++ = value(data, format.layout.bits, i * regions.k_padded + j) * scales[j / scale_k];
  }
}

struct ActFormats {
  static constexpr size_t count = groups.size() * offsets.size() * widths.size();
  std::array<std::string, count> names;
  std::array<QuantFormat, count> formats;

  ActFormats() {
    size_t i = 0;
    for (int group : groups) {
      for (size_t o = 0; o < offsets.size(); ++o) {
        for (int bits : widths) {
          names[i] = message("act_g", group, "_z", offsets[o], bits == 8 ? "" : "_i16");
          formats[i] = {.name = names[i],
                        .layout = {.group = static_cast<uint16_t>(group),
                                   .bits = static_cast<uint8_t>(bits),
                                   .scale = DType::f32,
                                   .offset = static_cast<uint8_t>(o)},
                        .bytes = act_bytes,
                        .dequantize = act_dequantize};
          ++i;
        }
      }
    }
  }
};

}  // namespace

const QuantFormat& act_format(const ActNeeds& needs) {
  static const ActFormats table;
  for (const QuantFormat& format : table.formats) {
    if (needs_in(format) == needs) return format;
  }
  fail(
      "activation format: expected group 16, 32, 64 or 128, offset 0 or a power of two up to 128 and 8 or 16 bits, "
      "found group ",
      needs.group, ", offset ", needs.offset, ", ", needs.bits, " bits");
}

bool is_act_format(const QuantFormat& format) { return format.dequantize == act_dequantize; }

ActNeeds act_needs_of(const QuantFormat& format) {
  NIBBLE_CHECK(is_act_format(format), "format ", format.name, ": expected an activation format");
  return needs_in(format);
}

ActRegions act_regions(const ActNeeds& needs, int64_t m, int64_t k) {
  NIBBLE_CHECK(m >= 0 && k >= 0 && needs.group > 0, "activations (", m, ", ", k, ") with groups of ", needs.group,
               ": expected sizes from 0 and a group from 1");
  ActRegions r;
  r.k_padded = ceil_div(k, 32) * 32;
  r.scales_per_row = ceil_div(k, act_group(needs.group));
  r.sums_per_row = ceil_div(k, needs.group);
  r.scales_offset = align64(static_cast<size_t>(m * r.k_padded * needs.bits / 8));
  r.sums_offset = align64(r.scales_offset + static_cast<size_t>(m * r.scales_per_row) * sizeof(float));
  r.bytes = align64(r.sums_offset + static_cast<size_t>(m * r.sums_per_row) * sizeof(int32_t));
  return r;
}

}  // namespace nibble
