// SPDX-License-Identifier: Apache-2.0
// quantize_rows for every format it can make: a weight moves by at most half a step plus what rounding the scale costs.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "quant/format.h"
#include "tensor/check.h"

namespace nibble::quant {
namespace {

enum class Kind { normal, positive, negative, spiky, constant, zero, tiny };
constexpr Kind kinds[] = {Kind::normal,   Kind::positive, Kind::negative, Kind::spiky,
                          Kind::constant, Kind::zero,     Kind::tiny};

std::vector<float> weights(Kind kind, int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 0.05f);
  std::vector<float> w(static_cast<size_t>(count));
  for (float& x : w) {
    x = normal(random);
    switch (kind) {
      case Kind::normal: break;
      case Kind::positive: x = std::fabs(x) + 0.1f; break;
      case Kind::negative: x = -std::fabs(x); break;
      case Kind::spiky: x = random() % 40 == 0 ? x * 100 : x; break;
      case Kind::constant: x = -0.3f; break;
      case Kind::zero: x = 0; break;
      case Kind::tiny: x *= 1e-5f; break;  // f16 scales become subnormal
    }
  }
  return w;
}

// At most half a unit in the last place of a number of this size: 2^-p of it for a significand of p bits.
double rounding(DType type, double value) {
  switch (type) {
    case DType::f16: return std::max(std::fabs(value) * 0x1p-11, 0x1p-25);
    case DType::bf16: return std::fabs(value) * 0x1p-8 + 0x1p-134;
    default: return std::fabs(value) * 0x1p-24 + 0x1p-150;
  }
}

struct BookRange {
  int low = 127, high = -128, widest_gap = 0;
};
BookRange book_range(int codebook) {
  const auto book = panel_codebook(codebook).codes();
  std::vector<int> sorted(book.begin(), book.end());
  std::sort(sorted.begin(), sorted.end());
  BookRange r{sorted.front(), sorted.back(), 0};
  for (size_t i = 1; i < sorted.size(); ++i) r.widest_gap = std::max(r.widest_gap, sorted[i] - sorted[i - 1]);
  return r;
}

// What quantising one group may cost, given the scale and minimum it was stored with.
double bound(const QuantLayout& l, const PanelScale& s, double peak) {
  const double step = std::fabs(s.scale);
  const BookRange book = l.codebook ? book_range(l.codebook) : BookRange{};
  const double codes = l.codebook                             ? std::max(-book.low, book.high)
                       : l.zero_point == ZeroPoint::symmetric ? 1 << (l.bits - 1)
                                                              : (1 << l.bits) - 1;
  const double half = l.codebook ? book.widest_gap / 2.0 : 0.5;
  // The stored scale is within rounding() of the ideal one, counted from either side, and the last code multiplies it.
  double total = half * step + codes * rounding(l.scale, step) * (1 + 0x1p-7);
  if (l.zero_point == ZeroPoint::minimum) total += rounding(l.scale, s.minimum) * (1 + 0x1p-7);
  return total + 8 * 0x1p-24 * (peak + codes * step);  // the f32 operations on the way there and back
}

std::vector<int64_t> widths(const QuantLayout& l) {
  if (l.bits == 0) return {1, 13, 96};
  if (l.group == 0) return {1, 7, 100, 128, 130, 576};
  std::vector<int64_t> k = {l.group, 3 * l.group, 5 * l.group};
  for (int64_t value : {160, 576}) {
    if (value % l.group == 0) k.push_back(value);
  }
  return k;
}

void check_round_trip(const QuantFormat& format, int64_t n, int64_t k, Kind kind) {
  const QuantLayout& l = format.layout;
  const auto w = weights(kind, n * k, 7);
  std::vector<std::byte> packed(format.bytes(format, n, k), std::byte{0xa5});
  quantize_rows(format, w.data(), n, k, 0, n, packed.data());
  std::vector<float> got(w.size());
  format.dequantize(format, packed.data(), n, k, 0, n, got.data());
  const PanelGeometry g = panel_geometry(l, n, k);
  for (int64_t i = 0; i < n; ++i) {
    const float* row = w.data() + i * k;
    const std::byte* panel = packed.data() + static_cast<size_t>(i / 16) * g.panel_bytes;
    double limit = 0;
    for (int64_t j = 0; j < k; ++j) {
      if (l.bits == 0) {
        limit = l.scale == DType::f32 ? 0 : rounding(l.scale, row[j]);
      } else if (j % 16 == 0) {  // no group is shorter
        const int64_t width = l.group ? l.group : k, begin = j / width * width;
        double peak = 0;
        for (int64_t q = begin; q < begin + width; ++q) peak = std::max<double>(peak, std::fabs(row[q]));
        limit = bound(l, panel_scale(l, g, panel, j, static_cast<int>(i % 16)), peak);
      }
      const float want = row[j], is = got[static_cast<size_t>(i * k + j)];
      ASSERT_LE(std::fabs(double{is} - want), limit)
          << format.name << " (" << n << ", " << k << ") weight (" << i << ", " << j << ") is " << is << ", was "
          << want << ", kind " << static_cast<int>(kind) << ", seed 7";
    }
  }
}

TEST(QuantizeRows, StaysWithinHalfAStep) {
  for (const QuantFormat* format : all_formats()) {
    if (format->layout.sub_groups) continue;
    for (int64_t n : {1, 16, 21}) {
      for (int64_t k : widths(format->layout)) {
        for (Kind kind : kinds) check_round_trip(*format, n, k, kind);
      }
    }
  }
}

// The stored step is never much wider than the range needs: a bound on the step, which the test above takes as given.
TEST(QuantizeRows, UsesTheWholeRangeOfCodes) {
  for (const QuantFormat* format : all_formats()) {
    const QuantLayout& l = format->layout;
    if (l.sub_groups || l.bits == 0) continue;
    const int64_t k = l.group ? l.group : 256;
    for (unsigned seed = 0; seed < 20; ++seed) {
      const auto w = weights(Kind::normal, k, seed);
      const auto [low, high] = std::minmax_element(w.begin(), w.end());
      const double peak = std::max(std::fabs(*low), std::fabs(*high)), half = 1 << (l.bits - 1);
      double ideal = (*high - *low) / (2 * half - 1);
      if (l.zero_point == ZeroPoint::integer) ideal = (std::max(*high, 0.0f) - std::min(*low, 0.0f)) / (2 * half - 1);
      if (l.zero_point == ZeroPoint::symmetric)
        ideal = l.codebook ? peak / std::min(-book_range(l.codebook).low, book_range(l.codebook).high)
                           : peak / (half - 0.5);
      std::vector<std::byte> packed(format->bytes(*format, 1, k));
      quantize_rows(*format, w.data(), 1, k, 0, 1, packed.data());
      const PanelScale s = panel_scale(l, panel_geometry(l, 1, k), packed.data(), 0, 0);
      EXPECT_LE(std::fabs(s.scale), ideal + rounding(l.scale, ideal) * (1 + 0x1p-7)) << format->name << seed;
    }
  }
}

TEST(QuantizeRows, PiecesGiveTheSameBytes) {
  for (const QuantFormat* format : all_formats()) {
    if (format->layout.sub_groups) continue;
    const int64_t n = 37, k = 128;
    const auto w = weights(Kind::normal, n * k, 3);
    std::vector<std::byte> whole(format->bytes(*format, n, k), std::byte{1}), pieces(whole.size(), std::byte{2});
    quantize_rows(*format, w.data(), n, k, 0, n, whole.data());
    const std::pair<int64_t, int64_t> ranges[] = {{32, 5}, {0, 16}, {16, 16}};
    for (auto [row, rows] : ranges) quantize_rows(*format, w.data() + row * k, n, k, row, rows, pieces.data());
    EXPECT_TRUE(whole == pieces) << format->name;
  }
}

TEST(QuantizeRows, KeepsAWholeRowToOneScale) {
  const QuantFormat& format = find_format("q8s_row");
  const int64_t k = 300;
  const auto w = weights(Kind::normal, k, 9);
  std::vector<std::byte> packed(format.bytes(format, 1, k));
  quantize_rows(format, w.data(), 1, k, 0, 1, packed.data());
  const PanelGeometry g = panel_geometry(format.layout, 1, k);
  EXPECT_EQ(g.groups, 3);
  const float scale = panel_scale(format.layout, g, packed.data(), 0, 0).scale;
  EXPECT_NE(scale, 0.0f);
  EXPECT_EQ(panel_scale(format.layout, g, packed.data(), 128, 0).scale, scale);
  EXPECT_EQ(panel_scale(format.layout, g, packed.data(), 299, 0).scale, scale);
}

TEST(QuantizeRows, RefusesWhatItCannotStore) {
  const QuantFormat& format = find_format("q4s_g32");
  std::vector<std::byte> packed(format.bytes(format, 16, 32));
  std::vector<float> w(16 * 32, 1.0f);
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity(), 1e30f}) {
    w[40] = bad;
    EXPECT_THROW(quantize_rows(format, w.data(), 16, 32, 0, 16, packed.data()), Error) << bad;
  }
  const QuantFormat& super = find_format("q4z_g32x8");
  EXPECT_THROW(quantize_rows(super, w.data(), 1, 256, 0, 1, packed.data()), Error);
}

}  // namespace
}  // namespace nibble::quant
