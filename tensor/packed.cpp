// SPDX-License-Identifier: Apache-2.0
#include "tensor/packed.h"

#include <array>
#include <string>

#include "tensor/check.h"

namespace nibble {

namespace {

constexpr std::array groups = {16, 32, 64, 128};
constexpr std::array offsets = {0, 1, 2, 4, 8, 16, 32, 64, 128};

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr size_t align64(size_t bytes) { return (bytes + 63) / 64 * 64; }

size_t act_bytes(const QuantFormat& format, int64_t m, int64_t k) { return act_regions(format.layout.group, m, k).bytes; }

void act_dequantize(const QuantFormat& format, const std::byte* data, int64_t m, int64_t k, int64_t row, int64_t rows,
                    float* out) {
  const ActRegions regions = act_regions(format.layout.group, m, k);
  const int64_t scale_k = act_group(format.layout.group);
  for (int64_t i = row; i < row + rows; ++i) {
    const auto* values = reinterpret_cast<const int8_t*>(data) + i * regions.k_padded;
    const auto* scales = reinterpret_cast<const float*>(data + regions.scales_offset) + i * regions.scales_per_row;
    for (int64_t j = 0; j < k; ++j) *out++ = static_cast<float>(values[j]) * scales[j / scale_k];
  }
}

struct ActFormats {
  std::array<std::string, groups.size() * offsets.size()> names;
  std::array<QuantFormat, groups.size() * offsets.size()> formats;

  ActFormats() {
    size_t i = 0;
    for (int group : groups) {
      for (size_t o = 0; o < offsets.size(); ++o, ++i) {
        names[i] = message("act_g", group, "_z", offsets[o]);
        formats[i] = {.name = names[i],
                      .layout = {.group = static_cast<uint16_t>(group),
                                 .bits = 8,
                                 .scale = DType::f32,
                                 .spare = static_cast<uint8_t>(o)},
                      .bytes = act_bytes,
                      .dequantize = act_dequantize};
      }
    }
  }
};

}  // namespace

const QuantFormat& act_format(int group, int offset) {
  static const ActFormats table;
  for (size_t g = 0; g < groups.size(); ++g) {
    for (size_t o = 0; o < offsets.size(); ++o) {
      if (groups[g] == group && offsets[o] == offset) return table.formats[g * offsets.size() + o];
    }
  }
  fail("activation format: expected group 16, 32, 64 or 128 and offset 0 or a power of two up to 128, found group ",
       group, ", offset ", offset);
}

bool is_act_format(const QuantFormat& format) { return format.dequantize == act_dequantize; }

int act_offset(const QuantFormat& format) {
  NIBBLE_CHECK(is_act_format(format), "format ", format.name, ": expected an activation format");
  return offsets[format.layout.spare];
}

ActRegions act_regions(int group, int64_t m, int64_t k) {
  NIBBLE_CHECK(m >= 0 && k >= 0 && group > 0, "activations (", m, ", ", k, ") with groups of ", group,
               ": expected sizes from 0 and a group from 1");
  ActRegions r;
  r.k_padded = ceil_div(k, 32) * 32;
  r.scales_per_row = ceil_div(k, act_group(group));
  r.sums_per_row = ceil_div(k, group);
  r.scales_offset = align64(static_cast<size_t>(m * r.k_padded));
  r.sums_offset = align64(r.scales_offset + static_cast<size_t>(m * r.scales_per_row) * sizeof(float));
  r.bytes = align64(r.sums_offset + static_cast<size_t>(m * r.sums_per_row) * sizeof(int32_t));
  return r;
}

}  // namespace nibble
