// SPDX-License-Identifier: Apache-2.0
#include "tensor/panel.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "tensor/check.h"

namespace nibble {

namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
size_t round_up_64(size_t bytes) { return (bytes + 63) / 64 * 64; }

float load_scale(DType type, const std::byte* p, int64_t index) {
  if (type == DType::f32) {
    float value;
    std::memcpy(&value, p + index * 4, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, p + index * 2, sizeof bits);
  return type == DType::f16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}

void check_layout(const QuantLayout& l) {
  NIBBLE_CHECK(l.bits <= 8, "weight layout: codes of ", int{l.bits}, " bits, expected 0 to 8");
  NIBBLE_CHECK(l.scale == DType::f16 || l.scale == DType::bf16 || l.scale == DType::f32, "weight layout: scale type ",
               name(l.scale), ", expected f16, bf16 or f32");
  if (l.bits == 0) return;
  NIBBLE_CHECK(l.group == 0 || l.group == 16 || l.group == 32 || l.group == 64 || l.group == 128,
               "weight layout: group ", l.group, ", expected 16, 32, 64, 128 or 0 for the whole row");
  NIBBLE_CHECK(l.sub_groups == 0 || (l.group != 0 && l.zero_point != ZeroPoint::integer),
               "weight layout: sub_groups need a group size and a symmetric or minimum zero point");
  if (const FloatBook* floats = float_book(l.codebook)) {
    NIBBLE_CHECK(l.bits == floats->bits && l.zero_point == ZeroPoint::symmetric && l.sub_groups == 0 &&
                     l.scale == DType::f32 && l.group != 16,
                 "weight layout: codebook ", floats->name, " needs codes of ", floats->bits,
                 " bits, groups from 32 and scales of f32");
    return;
  }
  NIBBLE_CHECK(l.product == DType::f32, "weight layout: products of type ", name(l.product),
               " need a codebook of floats");
  if (l.codebook == 0) return;
  const Codebook& book = panel_codebook(l.codebook);
  NIBBLE_CHECK(l.bits == book.bits && l.zero_point == ZeroPoint::symmetric, "weight layout: codebook ", book.name,
               " needs codes of ", book.bits, " bits and a symmetric zero point");
}

int stored_group(const QuantLayout& l) { return l.group == 0 ? max_group : std::min<int>(l.group, max_group); }

template <class T>
void quantize_row(const ActNeeds& needs, FunctionRef<float(int64_t)> x, int64_t m, int64_t k, int64_t i,
                  std::byte* out) {
  const ActRegions g = act_regions(needs, m, k);
  T* q = reinterpret_cast<T*>(out) + i * g.k_padded;
  float* scales = reinterpret_cast<float*>(out + g.scales_offset) + i * g.scales_per_row;
  int32_t* sums = reinterpret_cast<int32_t*>(out + g.sums_offset) + i * g.sums_per_row;
  std::fill(q + k, q + g.k_padded, T{0});
  const int64_t step = act_group(needs.group);
  const float limit = static_cast<float>(needs.limit());
  for (int64_t begin = 0; begin < k; begin += step) {
    const int64_t end = std::min(begin + step, k);
    float max = 0;
    for (int64_t j = begin; j < end; ++j) max = std::max(max, std::fabs(x(j)));
    scales[begin / step] = max / limit;
    const float inverse = max == 0 ? 0.0f : limit / max;
    for (int64_t j = begin; j < end; ++j) {
      const float y = x(j) * inverse;
      q[j] = static_cast<T>(std::nearbyint(y >= -limit ? std::min(y, limit) : -limit));
    }
  }
  for (int64_t s = 0; s < g.sums_per_row; ++s) {
    int32_t sum = 0;
    for (int64_t j = s * needs.group; j < std::min((s + 1) * needs.group, k); ++j) sum += q[j];
    sums[s] = needs.offset > 0 ? -needs.offset * sum : std::bit_cast<int32_t>(static_cast<float>(sum));
  }
}

}  // namespace

PanelGeometry panel_geometry(const QuantLayout& layout, int64_t n, int64_t k) {
  check_layout(layout);
  NIBBLE_CHECK(n >= 0 && k >= 0, "packed weight (", n, ", ", k, "): negative dimension");
  PanelGeometry g;
  g.panels = ceil_div(n, panel_columns);
  g.k_blocks = ceil_div(k, block_k);
  const size_t line = panel_columns * element_bytes(layout.scale);
  if (layout.bits == 0) {
    g.code_block_bytes = block_k * line;
    g.scales_offset = static_cast<size_t>(k) * line;
    g.panel_bytes = round_up_64(g.scales_offset);
    return g;
  }
  const int64_t unit = layout.group * std::max<int64_t>(layout.sub_groups, 1);
  NIBBLE_CHECK(layout.group == 0 || k % unit == 0, "packed weight (", n, ", ", k, "): k must be a multiple of ", unit,
               layout.sub_groups ? " (a super-block)" : " (a group)");
  NIBBLE_CHECK(float_book(layout.codebook) == nullptr || k % block_k == 0, "packed weight (", n, ", ", k,
               "): k must be a multiple of ", block_k, " for a codebook of floats");
  g.group = stored_group(layout);
  g.groups = ceil_div(k, g.group);
  g.code_block_bytes = size_t{64} * layout.bits;
  g.scales_offset = static_cast<size_t>(g.k_blocks) * g.code_block_bytes;
  const size_t pair = layout.zero_point == ZeroPoint::minimum ? 2 : 1;
  g.scale_group_bytes = pair * line;
  if (layout.zero_point == ZeroPoint::integer) g.scale_group_bytes += panel_columns;
  g.scale_group_bytes += layout.sub_groups * pair * panel_columns;
  const int64_t records = layout.sub_groups ? g.groups / layout.sub_groups : g.groups;
  g.panel_bytes = round_up_64(g.scales_offset + static_cast<size_t>(records) * g.scale_group_bytes);
  return g;
}

unsigned panel_code(const QuantLayout& layout, const std::byte* panel, int64_t k, int column) {
  const std::byte* plane = panel + k / block_k * 64 * layout.bits;
  const int kk = static_cast<int>(k % block_k), byte = 4 * column + kk % 4, quad = kk / 4;
  if (layout.bits == 8) return std::to_integer<unsigned>(plane[64 * quad + byte]);
  unsigned code = 0;
  int shift = 0;
  for (const int width : {4, 2, 1}) {
    if ((layout.bits & width) == 0) continue;
    const int per_byte = 8 / width;
    const unsigned bits = std::to_integer<unsigned>(plane[64 * (quad / per_byte) + byte]);
    code |= ((bits >> (quad % per_byte * width)) & ((1u << width) - 1)) << shift;
    shift += width;
    plane += 64 * width;
  }
  return code;
}

PanelScale panel_scale(const QuantLayout& layout, const PanelGeometry& geometry, const std::byte* panel, int64_t k,
                       int column) {
  const int64_t group = k / geometry.group;
  const bool has_minimum = layout.zero_point == ZeroPoint::minimum;
  const int64_t record = layout.sub_groups ? group / layout.sub_groups : group;
  const std::byte* p = panel + geometry.scales_offset + record * static_cast<int64_t>(geometry.scale_group_bytes);
  PanelScale s;
  s.scale = load_scale(layout.scale, p, column);
  if (has_minimum) s.minimum = load_scale(layout.scale, p, panel_columns + column);
  const std::byte* after =
      p + (has_minimum ? 2 : 1) * panel_columns * static_cast<int64_t>(element_bytes(layout.scale));
  if (layout.sub_groups) {
    const std::byte* multipliers = after + group % layout.sub_groups * panel_columns * (has_minimum ? 2 : 1);
    s.scale *= static_cast<float>(static_cast<int8_t>(multipliers[column]));
    if (has_minimum) s.minimum *= static_cast<float>(static_cast<int8_t>(multipliers[panel_columns + column]));
  }
  if (layout.zero_point == ZeroPoint::integer) {
    s.minimum = -(s.scale * static_cast<float>(std::to_integer<int>(after[column])));
  }
  return s;
}

float panel_weight(const QuantLayout& layout, const PanelGeometry& geometry, const std::byte* panel, int64_t k,
                   int column) {
  const unsigned code = panel_code(layout, panel, k, column);
  const PanelScale s = panel_scale(layout, geometry, panel, k, column);
  if (const FloatBook* book = float_book(layout.codebook))
    return rounded_product(layout.product, book->value(code) * s.scale);
  if (layout.zero_point == ZeroPoint::symmetric) return s.scale * static_cast<float>(panel_number(layout, code));
  return std::fma(s.scale, static_cast<float>(code), s.minimum);
}

float panel_float(const QuantLayout& layout, const std::byte* panel, int64_t k, int column) {
  return load_scale(layout.scale, panel, k * panel_columns + column);
}

int panel_number(const QuantLayout& layout, unsigned code) {
  if (layout.codebook) return panel_codebook(layout.codebook).values[code];
  return static_cast<int>(code) - (1 << (layout.bits - 1));
}

ActNeeds panel_act_needs(const QuantLayout& w) {
  ActNeeds needs{.group = stored_group(w), .offset = 0, .bits = w.bits > 6 && !w.codebook ? 16 : 8};
  if (w.zero_point == ZeroPoint::symmetric)
    needs.offset = w.codebook ? panel_codebook(w.codebook).zero : 1 << (w.bits - 1);
  return needs;
}

void quantize_act_row(const ActNeeds& needs, const float* x, int64_t m, int64_t k, int64_t i, std::byte* out) {
  quantize_act_row(needs, [x](int64_t j) { return x[j]; }, m, k, i, out);
}

void quantize_act_row(const ActNeeds& needs, FunctionRef<float(int64_t)> x, int64_t m, int64_t k, int64_t i,
                      std::byte* out) {
  if (needs.bits == 16) {
    quantize_row<int16_t>(needs, x, m, k, i, out);
  } else {
    quantize_row<int8_t>(needs, x, m, k, i, out);
  }
}

}  // namespace nibble
