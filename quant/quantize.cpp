// SPDX-License-Identifier: Apache-2.0
// Floats to panels. Codes are chosen against the scale as stored, so that its rounding is not paid for twice.
#include "quant/quantize.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "quant/codes.h"
#include "quant/formats/formats.h"
#include "quant/group_scale.h"
#include "quant/panels.h"
#include "quant/quantize_avx2.h"
#include "tensor/check.h"
#include "tensor/clones.h"

namespace nibble::quant {

namespace {

using Lanes = float __attribute__((vector_size(32)));
using Bytes = uint8_t __attribute__((vector_size(8)));
constexpr int lanes = 8;
constexpr float magic = 0x1.8p23f;

/// range_of for a multiple of eight.
NIBBLE_CLONES("avx2", "default")
void range_of_lanes(const float* x, int count, Range& range) {
  Lanes low, high;
  std::memcpy(&low, x, sizeof low);
  high = low;
  for (int j = lanes; j < count; j += lanes) {
    Lanes v;
    std::memcpy(&v, x + j, sizeof v);
    low = v < low ? v : low;
    high = v > high ? v : high;
  }
  range = {low[0], high[0]};
  for (int i = 1; i < lanes; ++i) {
    range.low = std::min(range.low, low[i]);
    range.high = std::max(range.high, high[i]);
  }
}

/// codes = nearest(x - minimum, d, low, high) - low, for a multiple of eight and d that is not 0.
NIBBLE_CLONES("avx2", "default")
void codes_of_lanes(const float* x, int count, float minimum, float d, float low, float high, uint8_t* codes) {
  for (int j = 0; j < count; j += lanes) {
    Lanes v;
    std::memcpy(&v, x + j, sizeof v);
    v = (v - minimum) / d;
    v = v < low ? Lanes{} + low : v;
    v = v > high ? Lanes{} + high : v;
    v = ((v + magic) - magic) - low;
    const Bytes eight = __builtin_convertvector(v, Bytes);
    std::memcpy(codes + j, &eight, sizeof eight);
  }
}

// x / d rounded to nearest even and clamped to [low, high]; 0 stands for everything when d is 0. Adding 1.5 * 2^23 puts
// the sum's last place at 1, so the addition rounds.
int nearest(float x, float d, int low, int high) {
  if (d == 0) return std::clamp(0, low, high);
  const float clamped = std::clamp(x / d, static_cast<float>(low), static_cast<float>(high));
  return static_cast<int>((clamped + magic) - magic);
}

/// Per weight the first code whose value is nearest to x / d, or to 0 when d is 0.
NIBBLE_CLONES("avx2", "default")
void codes_of_book(const float* x, int count, float d, const int8_t* book, int size, uint8_t* codes) {
  using Integers = int32_t __attribute__((vector_size(32)));
  float values[16];
  std::copy_n(book, size, values);
  for (int j = 0; j < count; j += lanes) {
    const auto left = static_cast<size_t>(std::min(count - j, lanes));
    Lanes v{}, least{};
    std::memcpy(&v, x + j, left * sizeof *x);
    v = d != 0 ? v / d : Lanes{};
    Integers best{};
    for (int i = 0; i < size; ++i) {
      const Lanes difference = v - values[i], distance = Lanes(Integers(difference) & 0x7fffffff);
      const Integers nearer = i == 0 ? Integers{} - 1 : Integers(distance < least);
      least = nearer ? distance : least;
      best = nearer ? Integers{} + i : best;
    }
    const Bytes eight = __builtin_convertvector(best, Bytes);
    std::memcpy(codes + j, &eight, left);
  }
}

/// Codes of a book in rising order of what they stand for; those of NaN, infinities and the negative zero left out.
struct SortedBook {
  std::vector<std::pair<float, uint8_t>> values;

  explicit SortedBook(const FloatBook& book) {
    for (unsigned code = 0; code < 1u << book.bits; ++code) {
      const float value = book.value(code) * book.unit;
      if (std::fabs(value) <= book.most && !(value == 0 && code >= 1u << (book.bits - 1)))
        values.emplace_back(value, static_cast<uint8_t>(code));
    }
    std::sort(values.begin(), values.end());
  }
};

/// The values of a book from `-low` to `high`, and how far the nearest one is from the farther end.
struct BookEnds {
  int low, high, gap;

  explicit BookEnds(std::span<const int8_t> book) {
    std::vector<int> sorted(book.begin(), book.end());
    std::sort(sorted.begin(), sorted.end());
    low = -sorted.front(), high = sorted.back();
    gap = high > low ? sorted[1] - sorted[0] : high - sorted[sorted.size() - 2];
  }
};

const BookEnds& ends_of_book(int index) {
  static const std::vector<BookEnds> all = [] {
    std::vector<BookEnds> ends;
    for (int i = books::nf4; i <= books::odd; ++i) ends.emplace_back(panel_codebook(i).codes());
    return ends;
  }();
  return all[static_cast<size_t>(index - books::nf4)];
}

// The peak becomes the book's farther end, as it becomes code 0 in find_scale. Ends that are equally far need no
// negative scale.
float codebook_scale(const Range& range, int index) {
  const auto [low, high, gap] = ends_of_book(index);
  const float peak = std::fabs(range.low) > std::fabs(range.high) ? range.low : range.high;
  const float other = peak == range.low ? range.high : range.low;
  if (low == high) return std::fabs(peak) / static_cast<float>(high);
  const bool upwards = high > low;
  const float reach = static_cast<float>(std::min(low, high)) + static_cast<float>(gap) / 2;
  const float step = std::max(std::fabs(peak) / static_cast<float>(std::max(low, high)),
                              peak * other < 0 ? std::fabs(other) / reach : 0.0f);
  return (peak > 0) == upwards ? step : -step;
}

GroupScale quantize_group(const QuantLayout& layout, const float* x, int count, uint8_t* codes) {
  GroupScale s;
  const bool by_lanes = count % lanes == 0;
  Range range;
  if (by_lanes) range_of_lanes(x, count, range);
  else range = range_of(x, count);
  // codes of x - minimum against the scale, the lowest being 0
  const auto encode = [&](float minimum, int low, int high) {
    if (by_lanes && s.scale != 0)
      return codes_of_lanes(x, count, minimum, s.scale, static_cast<float>(low), static_cast<float>(high), codes);
    for (int i = 0; i < count; ++i) codes[i] = static_cast<uint8_t>(nearest(x[i] - minimum, s.scale, low, high) - low);
  };
  const int top = (1 << layout.bits) - 1, middle = 1 << (layout.bits - 1);
  if (const FloatBook* floats = float_book(layout.codebook)) {
    s.scale = rounded_to(layout.scale, std::max(std::fabs(range.low), std::fabs(range.high)) / floats->most);
    for (int i = 0; i < count; ++i) codes[i] = nearest_code(*floats, s.scale != 0 ? x[i] / s.scale : 0.0f);
    return s;
  }
  if (layout.codebook) {
    const auto book = panel_codebook(layout.codebook).codes();
    s.scale = rounded_to(layout.scale, codebook_scale(range, layout.codebook));
    codes_of_book(x, count, s.scale, book.data(), static_cast<int>(book.size()), codes);
    return s;
  }
  find_scale(layout, range.low, range.high, s.scale);
  s.scale = rounded_to(layout.scale, s.scale);
  switch (layout.zero_point) {
    case ZeroPoint::symmetric:
      encode(0, -middle, middle - 1);
      break;
    case ZeroPoint::minimum:
      s.minimum = rounded_to(layout.scale, range.low);
      encode(s.minimum, 0, top);
      break;
    case ZeroPoint::integer:
      s.zero = static_cast<uint8_t>(nearest(-std::min(range.low, 0.0f), s.scale, 0, top));
      encode(0, -s.zero, top - s.zero);
  }
  return s;
}

void check_finite(const float* x, int64_t k, int64_t row, const QuantFormat& format) {
  uint32_t largest = 0;  // exponents: those of numbers that are not finite are all ones
  for (int64_t j = 0; j < k; ++j) largest = std::max(largest, std::bit_cast<uint32_t>(x[j]) & 0x7f800000u);
  if (largest != 0x7f800000u) return;
  for (int64_t j = 0; j < k; ++j) {
    NIBBLE_CHECK(std::isfinite(x[j]), "quantising to ", format.name, ": weight (", row, ", ", j, ") is ", x[j]);
  }
}

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

struct Quantizer {
  const QuantFormat& format;
  PanelGeometry geometry;
  int64_t k;
  const QuantLayout& layout = format.layout;
  size_t stride = static_cast<size_t>(geometry.k_blocks) * block_k;
  std::vector<float> floats = {};
  std::vector<uint8_t> codes = std::vector<uint8_t>(panel_columns * stride);
  std::vector<GroupScale> scales = std::vector<GroupScale>(static_cast<size_t>(panel_columns * geometry.groups));

  /// `count` rows as one panel; the first is row `row` of the weight.
  void panel(const float* in, int count, int64_t row, std::byte* out) {
    if (layout.bits == 0) return convert_panel(layout, geometry, in, count, k, out);
    for (int c = 0; c < count; ++c) column(c, in + c * k, row + c);
    if (count < panel_columns) clear_columns(count);
    write_panel(layout, geometry, codes.data(), stride, scales.data(), out);
  }

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
};

}  // namespace

uint8_t nearest_code(const FloatBook& book, float x) {
  static const std::vector<SortedBook> sorted = [] {
    std::vector<SortedBook> all;
    for (int i = books::nf4_float; i <= books::e5m2; ++i) all.emplace_back(*float_book(i));
    return all;
  }();
  const auto& values = sorted[static_cast<size_t>(&book - float_book(books::nf4_float))].values;
  const auto above = std::lower_bound(values.begin(), values.end(), std::pair{x, uint8_t{0}});
  if (above == values.begin()) return above->second;
  if (above == values.end()) return values.back().second;
  const auto below = above - 1;
  const float up = above->first - x, down = x - below->first;
  if (up != down) return up < down ? above->second : below->second;
  return above->second % 2 == 0 ? above->second : below->second;
}

void quantize_numbers(const QuantLayout& layout, const float* in, int64_t rows, int64_t k, uint8_t* codes,
                      float* scales, float* offsets) {
  const int64_t group = layout.group ? layout.group : k;
  NIBBLE_CHECK(k % group == 0, "rows of ", k, " weights in groups of ", group);
  for (int64_t i = 0; i < rows * k; ++i)
    NIBBLE_CHECK(std::isfinite(in[i]), "weight (", i / k, ", ", i % k, ") is ", in[i]);
  for (int64_t i = 0; i < rows * k; i += group) {
    const GroupScale s = quantize_group(layout, in + i, static_cast<int>(group), codes + i);
    NIBBLE_CHECK(std::isfinite(s.scale), "weights (", i / k, ", ", i % k, " to ", i % k + group,
                 ") need a scale beyond ", name(layout.scale));
    *scales++ = s.scale;
    *offsets++ = layout.zero_point == ZeroPoint::integer ? s.zero
                 : layout.codebook                       ? 0.0f
                                                         : static_cast<float>(1 << (layout.bits - 1));
  }
}

void quantize_blocks(const QuantFormat& format, const BlockType& type, const std::byte* blocks, int64_t n, int64_t k,
                     int64_t row, int64_t rows, std::byte* packed) {
  const QuantLayout &layout = format.layout, &source = type.format->layout;
  const PanelGeometry geometry = panel_geometry(layout, n, k);
  check_rows("packed weight", n, k, row, rows);
  NIBBLE_CHECK(layout.sub_groups == 0, "quantising to ", format.name, ": formats with sub-groups only come from files");
  NIBBLE_CHECK(k % type.block_elements == 0, "weight (", n, ", ", k, ") of type ", type.name,
               ": k must be a multiple of its ", type.block_elements, " weights per block");
  const size_t row_bytes = static_cast<size_t>(k / type.block_elements) * type.block_bytes;
  std::optional<FastQuantizer> fast;
  if (source.bits == 0 && FastQuantizer::supports(layout, k)) fast.emplace(layout, source.scale, n, k);
  std::optional<Quantizer> exact;
  for (int64_t begin = row; begin < row + rows; begin += panel_columns, blocks += panel_columns * row_bytes) {
    const int64_t count = std::min<int64_t>(panel_columns, row + rows - begin);
    std::byte* panel = packed + static_cast<size_t>(begin / panel_columns) * geometry.panel_bytes;
    // what cannot be stored is found again and named below
    if (fast && count == panel_columns && fast->panel(blocks, panel)) continue;
    if (!exact) exact.emplace(Quantizer{.format = format, .geometry = geometry, .k = k});
    exact->floats.resize(static_cast<size_t>(count * k));
    dequantize_blocks(type, blocks, count * k, exact->floats.data());
    exact->panel(exact->floats.data(), static_cast<int>(count), begin, panel);
  }
}

void quantize_rows(const QuantFormat& format, const float* in, int64_t n, int64_t k, int64_t row, int64_t rows,
                   std::byte* packed) {
  quantize_blocks(format, types::f32, reinterpret_cast<const std::byte*>(in), n, k, row, rows, packed);
}

}  // namespace nibble::quant
