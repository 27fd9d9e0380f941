// SPDX-License-Identifier: Apache-2.0
#include "models/io/coded_matrix.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "quant/codes.h"
#include "tensor/check.h"
#include "tensor/panel.h"

namespace nibble::models {

namespace {

/// The largest group of the packed layouts that never spans two of the checkpoint's; 0 when there is none.
int stored_group(const CodedMatrix& m) {
  for (const int size : {128, 64, 32, 16})
    if (m.k % size == 0 && (m.group % size == 0 || m.group >= m.k)) return size;
  return 0;
}

size_t group_of(const CodedMatrix& m, int64_t column) {
  return static_cast<size_t>(m.groups.empty() ? column / m.group : m.groups[static_cast<size_t>(column)]);
}

/// Values of rows from `row` on, `columns` in each.
void check_finite(const CodedMatrix& m, const char* what, int64_t row, int64_t columns, std::span<const float> values) {
  bool finite = true;
  for (const float value : values) finite = finite & std::isfinite(value);
  if (finite) return;
  const auto bad = std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
  const int64_t at = bad - values.begin();
  fail(m.where, ": expected finite ", what, ", found ", *bad, " at (", row + at / columns, ", ", at % columns,
       ") of the ", m.n, " x ", columns);
}

/// (rows, scales_per_row) each.
void read_scales(const CodedMatrix& m, int64_t row, int64_t rows, std::vector<float>& scales,
                 std::vector<float>& offsets) {
  scales.resize(static_cast<size_t>(rows * m.scales_per_row()));
  offsets.resize(scales.size());
  m.scales(row, rows, scales.data(), offsets.data());
  check_finite(m, "scales", row, m.scales_per_row(), scales);
  check_finite(m, "zero points", row, m.scales_per_row(), offsets);
}

bool in_order(const CodedMatrix& m) {
  for (int64_t j = 0; j < m.k; ++j)
    if (m.groups[static_cast<size_t>(j)] != j / m.group) return false;
  return true;
}

/// Whether every stored group's columns are of one group as they stand.
bool together(const CodedMatrix& m, int64_t stored) {
  for (int64_t j = 0; j < m.k; ++j)
    if (m.groups[static_cast<size_t>(j)] != m.groups[static_cast<size_t>(j - j % stored)]) return false;
  return true;
}

/// Whether each of the groups has as many columns as it would have in order.
bool even_groups(const CodedMatrix& m) {
  std::vector<int64_t> counts(static_cast<size_t>(m.scales_per_row()));
  for (const int32_t g : m.groups) ++counts[static_cast<size_t>(g)];
  for (size_t g = 0; g + 1 < counts.size(); ++g)
    if (counts[g] != m.group) return false;
  return true;
}

}  // namespace

void settle(CodedMatrix& m) {
  if (!m.groups.empty() && in_order(m)) m.groups.clear();
  const int stored = m.bits == 0 ? 0 : stored_group(m);
  if (m.codebook != 0) {
    const bool fits = stored >= block_k;
    m.format = fits ? &quant::format_of({.group = static_cast<uint16_t>(stored),
                                         .bits = static_cast<uint8_t>(m.bits),
                                         .scale = DType::f32,
                                         .codebook = m.codebook,
                                         .product = m.product})
                    : &quant::find_format(name(m.product));
    return;
  }
  const bool in_place = stored != 0 && (m.groups.empty() || together(m, stored));
  if (stored == 0 || (!in_place && !even_groups(m))) {
    // a product of a code and a 16-bit scale needs more bits than the scale has
    m.format = &quant::find_format(name(m.bits == 0 ? m.scale : DType::f32));
    return;
  }
  m.format = &quant::format_of({.group = static_cast<uint16_t>(stored),
                                .bits = static_cast<uint8_t>(m.bits),
                                .zero_point = m.zero_point,
                                .scale = m.scale});
  if (in_place) return;
  m.order.resize(static_cast<size_t>(m.k));
  std::iota(m.order.begin(), m.order.end(), 0);
  std::stable_sort(m.order.begin(), m.order.end(),
                   [&](int32_t a, int32_t b) { return group_of(m, a) < group_of(m, b); });
}

CodedRows read_codes(const CodedMatrix& m, int64_t row, int64_t rows) {
  const auto count = static_cast<size_t>(rows), k = static_cast<size_t>(m.k),
             per_row = static_cast<size_t>(m.scales_per_row());
  const auto stored = static_cast<int64_t>(m.format->layout.group);
  const auto groups = static_cast<size_t>(m.k / stored);
  CodedRows out{std::vector<uint8_t>(count * k), std::vector<float>(count * groups),
                std::vector<float>(count * groups)};
  std::vector<float> scales, offsets;
  read_scales(m, row, rows, scales, offsets);
  for (size_t g = 0; g < groups; ++g) {
    const int64_t begin = static_cast<int64_t>(g) * stored;
    const size_t from = group_of(m, m.order.empty() ? begin : m.order[static_cast<size_t>(begin)]);
    for (size_t i = 0; i < count; ++i) {
      out.scales[i * groups + g] = scales[i * per_row + from];
      out.offsets[i * groups + g] = offsets[i * per_row + from];
    }
  }
  if (m.order.empty()) {
    m.codes(row, rows, out.codes.data());
    return out;
  }
  std::vector<uint8_t> codes(count * k);
  m.codes(row, rows, codes.data());
  for (size_t i = 0; i < count; ++i)
    for (size_t j = 0; j < k; ++j) out.codes[i * k + j] = codes[i * k + static_cast<size_t>(m.order[j])];
  return out;
}

void read_floats(const CodedMatrix& m, int64_t row, int64_t rows, float* out) {
  if (m.bits == 0 || m.codebook != 0) {
    m.floats(row, rows, out);
    return check_finite(m, "weights", row, m.k, {out, static_cast<size_t>(rows * m.k)});
  }
  const auto count = static_cast<size_t>(rows), k = static_cast<size_t>(m.k),
             per_row = static_cast<size_t>(m.scales_per_row());
  std::vector<float> scales, offsets;
  std::vector<uint8_t> codes(count * k);
  read_scales(m, row, rows, scales, offsets);
  m.codes(row, rows, codes.data());
  for (size_t i = 0; i < count; ++i)
    for (size_t j = 0; j < k; ++j) {
      const size_t at = i * per_row + group_of(m, static_cast<int64_t>(j));
      const auto code = static_cast<float>(codes[i * k + j]);
      *out++ = m.zero_point == ZeroPoint::minimum ? scales[at] * code + offsets[at] : scales[at] * (code - offsets[at]);
    }
}

}  // namespace nibble::models
