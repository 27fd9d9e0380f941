// SPDX-License-Identifier: Apache-2.0
// Floats to panels. Codes are chosen against the scale as stored, so that its rounding is not paid for twice.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "quant/formats/formats.h"
#include "quant/panels.h"
#include "tensor/check.h"

namespace nibble::quant {

namespace {

struct GroupScale {
  float scale = 0, minimum = 0;
  uint8_t zero = 0;
};

float rounded(DType type, float value) {
  switch (type) {
    case DType::f16: return f16_to_f32(f32_to_f16(value));
    case DType::bf16: return bf16_to_f32(f32_to_bf16(value));
    default: return value;
  }
}

// x / d rounded to nearest even and clamped to [low, high]; 0 stands for everything when d is 0. Adding 1.5 * 2^23 puts
// the sum's last place at 1, so the addition rounds.
int nearest(float x, float d, int low, int high) {
  if (d == 0) return std::clamp(0, low, high);
  const float clamped = std::clamp(x / d, static_cast<float>(low), static_cast<float>(high));
  return static_cast<int>((clamped + 0x1.8p23f) - 0x1.8p23f);
}

int nearest_in(std::span<const int8_t> book, float x) {
  size_t best = 0;
  for (size_t i = 1; i < book.size(); ++i) {
    if (std::fabs(x - book[i]) < std::fabs(x - book[best])) best = i;
  }
  return static_cast<int>(best);
}

// The peak becomes code 0, the end that reaches farther. The step widens only where the other end would lie more than
// half a step beyond its last code.
float symmetric_scale(const Range& range, int bits) {
  const float half = std::ldexp(1.0f, bits - 1);
  const float peak = std::fabs(range.low) >= std::fabs(range.high) ? range.low : range.high;
  const float other = peak == range.low ? range.high : range.low;
  const float step = std::max(std::fabs(peak) / half, peak * other < 0 ? std::fabs(other) / (half - 0.5f) : 0.0f);
  return peak > 0 ? -step : step;
}

// The same for a codebook: the peak becomes its farther end. Ends that are equally far need no negative scale.
float codebook_scale(const Range& range, std::span<const int8_t> book) {
  std::vector<int> sorted(book.begin(), book.end());
  std::sort(sorted.begin(), sorted.end());
  const int low = -sorted.front(), high = sorted.back();
  const float peak = std::fabs(range.low) > std::fabs(range.high) ? range.low : range.high;
  const float other = peak == range.low ? range.high : range.low;
  if (low == high) return std::fabs(peak) / static_cast<float>(high);
  const bool upwards = high > low;
  const int gap = upwards ? sorted[1] - sorted[0] : high - sorted[sorted.size() - 2];
  const float reach = static_cast<float>(std::min(low, high)) + static_cast<float>(gap) / 2;
  const float step = std::max(std::fabs(peak) / static_cast<float>(std::max(low, high)), peak * other < 0 ? std::fabs(other) / reach : 0.0f);
  return (peak > 0) == upwards ? step : -step;
}

GroupScale quantize_group(const QuantLayout& layout, const float* x, int count, uint8_t* codes) {
  const Range range = range_of(x, count);
  const int top = (1 << layout.bits) - 1, middle = 1 << (layout.bits - 1);
  GroupScale s;
  if (layout.codebook) {
    const auto book = panel_codebook(layout.codebook).codes();
    s.scale = rounded(layout.scale, codebook_scale(range, book));
    for (int i = 0; i < count; ++i) {
      codes[i] = static_cast<uint8_t>(nearest_in(book, s.scale != 0 ? x[i] / s.scale : 0.0f));
    }
    return s;
  }
  switch (layout.zero_point) {
    case ZeroPoint::symmetric:
      s.scale = rounded(layout.scale, symmetric_scale(range, layout.bits));
      for (int i = 0; i < count; ++i) {
        codes[i] = static_cast<uint8_t>(nearest(x[i], s.scale, -middle, middle - 1) + middle);
      }
      break;
    case ZeroPoint::minimum:
      s.scale = rounded(layout.scale, (range.high - range.low) / static_cast<float>(top));
      s.minimum = rounded(layout.scale, range.low);
      for (int i = 0; i < count; ++i) codes[i] = static_cast<uint8_t>(nearest(x[i] - s.minimum, s.scale, 0, top));
      break;
    case ZeroPoint::integer: {
      const float low = std::min(range.low, 0.0f), high = std::max(range.high, 0.0f);
      s.scale = rounded(layout.scale, (high - low) / static_cast<float>(top));
      const int zero = nearest(-low, s.scale, 0, top);
      s.zero = static_cast<uint8_t>(zero);
      for (int i = 0; i < count; ++i) codes[i] = static_cast<uint8_t>(nearest(x[i], s.scale, -zero, top - zero) + zero);
    }
  }
  return s;
}

void check_finite(const float* x, int64_t k, int64_t row, const QuantFormat& format) {
  for (int64_t j = 0; j < k; ++j) {
    NIBBLE_CHECK(std::isfinite(x[j]), "quantising to ", format.name, ": weight (", row, ", ", j, ") is ", x[j]);
  }
}

struct Quantizer {
  const QuantFormat& format;
  const QuantLayout& layout;
  PanelGeometry geometry;
  int64_t k;
  size_t stride = static_cast<size_t>(geometry.k_blocks) * block_k;
  std::vector<uint8_t> codes = std::vector<uint8_t>(panel_columns * stride);
  std::vector<GroupScale> scales = std::vector<GroupScale>(static_cast<size_t>(panel_columns * geometry.groups));

  void column(int c, const float* x, int64_t row) {
    check_finite(x, k, row, format);
    const int64_t group = layout.group ? layout.group : k;
    for (int64_t j = 0; j < k; j += group) {
      uint8_t* out = codes.data() + static_cast<size_t>(c) * stride + j;
      const GroupScale s = quantize_group(layout, x + j, static_cast<int>(group), out);
      NIBBLE_CHECK(std::isfinite(s.scale) && std::isfinite(s.minimum), "quantising to ", format.name, ": weights (",
                   row, ", ", j, " to ", j + group, ") need a scale beyond ", name(layout.scale));
      for (int64_t g = j / geometry.group; g * geometry.group < j + group; ++g) {
        scales[static_cast<size_t>(g * panel_columns + c)] = s;
      }
    }
  }

  void clear_columns(int from) {
    std::fill(codes.begin() + static_cast<int64_t>(static_cast<size_t>(from) * stride), codes.end(), uint8_t{0});
    for (size_t i = 0; i < scales.size(); ++i) {
      if (static_cast<int>(i % panel_columns) >= from) scales[i] = {};
    }
  }

  void write(std::byte* panel) const {
    for (int64_t b = 0; b < geometry.k_blocks; ++b) {
      std::byte* block = panel + static_cast<size_t>(b) * geometry.code_block_bytes;
      write_codes(layout.bits, codes.data() + b * block_k, stride, block);
    }
    const size_t line = panel_columns * element_bytes(layout.scale);
    std::byte* out = panel + geometry.scales_offset;
    for (int64_t g = 0; g < geometry.groups; ++g, out += geometry.scale_group_bytes) {
      const GroupScale* s = scales.data() + g * panel_columns;
      float values[panel_columns], minima[panel_columns];
      for (int c = 0; c < panel_columns; ++c) {
        values[c] = s[c].scale;
        minima[c] = s[c].minimum;
      }
      write_scales(layout.scale, values, out);
      if (layout.zero_point == ZeroPoint::minimum) write_scales(layout.scale, minima, out + line);
      for (int c = 0; layout.zero_point == ZeroPoint::integer && c < panel_columns; ++c) {
        out[line + static_cast<size_t>(c)] = static_cast<std::byte>(s[c].zero);
      }
    }
    std::fill(out, panel + geometry.panel_bytes, std::byte{0});
  }
};

// Float formats: conversion only.
void convert_panel(const QuantLayout& layout, const PanelGeometry& geometry, const float* in, int count, int64_t k,
                   std::byte* panel) {
  for (int64_t j = 0; j < k; ++j) {
    float values[panel_columns] = {};
    for (int c = 0; c < count; ++c) values[c] = in[c * k + j];
    write_scales(layout.scale, values, panel + static_cast<size_t>(j) * panel_columns * element_bytes(layout.scale));
  }
  std::fill(panel + geometry.scales_offset, panel + geometry.panel_bytes, std::byte{0});
}

}  // namespace

void quantize_rows(const QuantFormat& format, const float* in, int64_t n, int64_t k, int64_t row, int64_t rows,
                   std::byte* packed) {
  const QuantLayout& layout = format.layout;
  const PanelGeometry geometry = panel_geometry(layout, n, k);
  check_rows("packed weight", n, k, row, rows);
  NIBBLE_CHECK(layout.sub_groups == 0, "quantising to ", format.name, ": formats with sub-groups only come from files");
  Quantizer quantizer{.format = format, .layout = layout, .geometry = geometry, .k = k};
  for (int64_t begin = row; begin < row + rows; begin += panel_columns) {
    const int count = static_cast<int>(std::min<int64_t>(panel_columns, row + rows - begin));
    const float* source = in + (begin - row) * k;
    std::byte* panel = packed + static_cast<size_t>(begin / panel_columns) * geometry.panel_bytes;
    if (layout.bits == 0) {
      convert_panel(layout, geometry, source, count, k, panel);
      continue;
    }
    for (int c = 0; c < count; ++c) quantizer.column(c, source + c * k, begin + c);
    if (count < panel_columns) quantizer.clear_columns(count);
    quantizer.write(panel);
  }
}

}  // namespace nibble::quant
