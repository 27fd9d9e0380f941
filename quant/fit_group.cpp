// SPDX-License-Identifier: Apache-2.0
#include "quant/fit_group.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "quant/formats/formats.h"
#include "tensor/clones.h"

namespace nibble::quant {

namespace {

// The clones give the same bits: sums run in lanes whatever the vectors are.
using Lanes = float __attribute__((vector_size(32)));
constexpr int lanes = 8;
constexpr float magic = 0x1.8p23f;  // adding it puts the sum's last place at 1, so the addition rounds

struct Even {
  float low, high;
};
struct Book {
  const float *level, *middle;
  int levels;
};

#define NIBBLE_LOAD(v, from) std::memcpy(&v, from, sizeof v)

float total(const float* lane) { return std::accumulate(lane, lane + lanes, 0.0f); }

NIBBLE_CLONES("avx2", "default")
void sum_even(const float* x, const float* h, int count, float inverse, float minimum, Even even, float* out) {
  Lanes q1 = {}, q2 = {}, qx = {};
  for (int j = 0; j < count; j += lanes) {
    Lanes v, w;
    NIBBLE_LOAD(v, x + j);
    NIBBLE_LOAD(w, h + j);
    Lanes q = (v - minimum) * inverse;
    q = q < even.low ? Lanes{} + even.low : q;
    q = q > even.high ? Lanes{} + even.high : q;
    q = (q + magic) - magic;
    w *= q;
    q1 += w;
    q2 += w * q;
    qx += w * v;
  }
  std::memcpy(out, &q1, sizeof q1);
  std::memcpy(out + lanes, &q2, sizeof q2);
  std::memcpy(out + 2 * lanes, &qx, sizeof qx);
}

NIBBLE_CLONES("avx2", "default")
void sum_book(const float* x, const float* h, int count, float inverse, Book book, float* out) {
  Lanes q1 = {}, q2 = {}, qx = {};
  for (int j = 0; j < count; j += lanes) {
    Lanes v, w;
    NIBBLE_LOAD(v, x + j);
    NIBBLE_LOAD(w, h + j);
    const Lanes y = v * inverse;
    Lanes q = Lanes{} + book.level[0];
    for (int i = 1; i < book.levels; ++i) q = y > book.middle[i - 1] ? Lanes{} + book.level[i] : q;
    w *= q;
    q1 += w;
    q2 += w * q;
    qx += w * v;
  }
  std::memcpy(out, &q1, sizeof q1);
  std::memcpy(out + lanes, &q2, sizeof q2);
  std::memcpy(out + 2 * lanes, &qx, sizeof qx);
}

NIBBLE_CLONES("avx2", "default")
void error_even(const float* x, const float* h, int count, float inverse, float scale, float minimum, Even even,
                float* out) {
  Lanes sum = {};
  for (int j = 0; j < count; j += lanes) {
    Lanes v, w;
    NIBBLE_LOAD(v, x + j);
    NIBBLE_LOAD(w, h + j);
    Lanes q = (v - minimum) * inverse;
    q = q < even.low ? Lanes{} + even.low : q;
    q = q > even.high ? Lanes{} + even.high : q;
    q = (q + magic) - magic;
    const Lanes apart = v - (q * scale + minimum);
    sum += w * apart * apart;
  }
  std::memcpy(out, &sum, sizeof sum);
}

NIBBLE_CLONES("avx2", "default")
void error_book(const float* x, const float* h, int count, float inverse, float scale, Book book, float* out) {
  Lanes sum = {};
  for (int j = 0; j < count; j += lanes) {
    Lanes v, w;
    NIBBLE_LOAD(v, x + j);
    NIBBLE_LOAD(w, h + j);
    const Lanes y = v * inverse;
    Lanes q = Lanes{} + book.level[0];
    for (int i = 1; i < book.levels; ++i) q = y > book.middle[i - 1] ? Lanes{} + book.level[i] : q;
    const Lanes apart = v - q * scale;
    sum += w * apart * apart;
  }
  std::memcpy(out, &sum, sizeof sum);
}

float inverse_of(float scale) { return scale != 0 ? 1 / scale : 0; }

}  // namespace

struct GroupFitter::Totals {
  float h = 0, hx = 0;
};

struct BestFit {
  GroupFit fit;
  float gain = 0;  ///< taken off the sum of h x²
};

GroupFitter::GroupFitter(const QuantLayout& layout, int count)
    : layout_(layout),
      count_(count != 0 ? count : layout.group),
      has_minimum_(layout.zero_point == ZeroPoint::minimum),
      below_zero_(layout.sub_groups != 0),
      positive_(float_book(layout.codebook) != nullptr) {
  const int codes = 1 << layout.bits;
  // the more codes the less is gained by cutting off what is rare
  widest_ = layout.bits <= 4 ? 0.75f : layout.bits <= 6 ? 0.85f : 0.95f;
  narrowest_ = layout.bits <= 4 ? 1.65f : layout.bits <= 6 ? 1.3f : 1.05f;
  if (layout.codebook != 0) {
    const FloatBook* floats = float_book(layout.codebook);
    levels_ = 1 << layout.bits;
    float book[16];
    for (int i = 0; i < levels_; ++i)
      book[i] = floats != nullptr ? floats->value(static_cast<unsigned>(i)) * floats->unit
                                  : static_cast<float>(panel_codebook(layout.codebook).values[i]);
    std::iota(level_code_, level_code_ + levels_, uint8_t{0});
    std::stable_sort(level_code_, level_code_ + levels_, [&](uint8_t a, uint8_t b) { return book[a] < book[b]; });
    for (int i = 0; i < levels_; ++i) level_[i] = book[level_code_[i]];
    for (int i = 0; i + 1 < levels_; ++i) middle_[i] = (level_[i] + level_[i + 1]) / 2;
    low_ = level_[0], high_ = level_[levels_ - 1];
  } else if (has_minimum_) {
    high_ = static_cast<float>(codes - 1);
  } else {
    // eight bits have no use for the code without a counterpart, and other readers do not expect it
    low_ = static_cast<float>(layout.bits == 8 ? 1 - codes / 2 : -codes / 2), high_ = static_cast<float>(codes / 2 - 1);
  }
}

GroupSums GroupFitter::sums_of_inverse(const float* x, const float* h, float inverse, float minimum) const {
  float out[3 * lanes];
  if (levels_ != 0) sum_book(x, h, count_, inverse, {level_, middle_, levels_}, out);
  else sum_even(x, h, count_, inverse, minimum, {low_, high_}, out);
  return {total(out), total(out + lanes), total(out + 2 * lanes)};
}

GroupSums GroupFitter::sums(const float* x, const float* h, float scale, float minimum) const {
  return sums_of_inverse(x, h, inverse_of(scale), minimum);
}

float GroupFitter::error(const float* x, const float* h, float scale, float minimum) const {
  float out[lanes];
  if (levels_ != 0) error_book(x, h, count_, inverse_of(scale), scale, {level_, middle_, levels_}, out);
  else error_even(x, h, count_, inverse_of(scale), scale, minimum, {low_, high_}, out);
  return total(out);
}

uint8_t GroupFitter::code(float x, float scale, float minimum) const {
  const float y = (x - minimum) * inverse_of(scale);
  if (levels_ != 0) return level_code_[std::lower_bound(middle_, middle_ + levels_ - 1, y) - middle_];
  const int number = static_cast<int>((std::clamp(y, low_, high_) + magic) - magic);
  return static_cast<uint8_t>(has_minimum_ ? number : number + (1 << (layout_.bits - 1)));
}

float GroupFitter::value(uint8_t code, float scale, float minimum) const {
  if (has_minimum_) return scale * static_cast<float>(code) + minimum;
  const FloatBook* floats = float_book(layout_.codebook);
  return scale *
         (floats != nullptr ? floats->value(code) * floats->unit : static_cast<float>(panel_number(layout_, code)));
}

/// The best scale and minimum for the codes that an inverse scale gives.
void GroupFitter::try_inverse(const float* x, const float* h, const Totals& totals, float inverse, float minimum,
                              BestFit& best) const {
  const GroupSums s = sums_of_inverse(x, h, inverse, minimum);
  GroupFit fit{.scale_cost = s.qq, .minimum_cost = totals.h};
  if (has_minimum_) {
    const float determinant = totals.h * s.qq - s.q * s.q;
    if (determinant > 0) fit.scale = (totals.h * s.qx - totals.hx * s.q) / determinant;
    fit.minimum = (totals.hx - fit.scale * s.q) / totals.h;
  }
  if (!has_minimum_ || (below_zero_ && fit.minimum > 0)) {
    fit.minimum = 0;
    fit.scale = s.qq > 0 ? s.qx / s.qq : 0;
  }
  const float gain = 2 * (fit.scale * s.qx + fit.minimum * totals.hx) - fit.scale * fit.scale * s.qq -
                     2 * fit.scale * fit.minimum * s.q - fit.minimum * fit.minimum * totals.h;
  if (gain > best.gain) best = {fit, gain};
}

/// The best scale for some codes may round some weights otherwise.
void GroupFitter::refine(const float* x, const float* h, const Totals& totals, BestFit& best) const {
  for (int i = 0; i < 4 && best.fit.scale != 0; ++i) {
    const float before = best.gain;
    try_inverse(x, h, totals, 1 / best.fit.scale, best.fit.minimum, best);
    if (!(best.gain > before)) return;
  }
}

GroupFit GroupFitter::search_symmetric(const float* x, const float* h) const {
  float peak = 0;
  for (int j = 0; j < count_; ++j) peak = std::max(peak, std::fabs(x[j]));
  if (peak == 0) return {};
  constexpr int steps = 24;
  const bool alike = positive_ || (low_ == -high_ && levels_ == 0);  // then the sign of the scale makes no difference
  BestFit best;
  const auto try_part = [&](float part) {
    const float inverse = std::max(-low_, high_) * part / peak;
    try_inverse(x, h, {}, inverse, 0, best);
    if (!alike) try_inverse(x, h, {}, -inverse, 0, best);
  };
  try_part(1);
  for (int i = 0; i <= steps; ++i) try_part(widest_ + (narrowest_ - widest_) * static_cast<float>(i) / steps);
  refine(x, h, {}, best);
  return best.fit;
}

GroupFit GroupFitter::search_minimum(const float* x, const float* h) const {
  Range range = range_of(x, count_);
  if (below_zero_) range.low = std::min(range.low, 0.0f);
  Totals totals;
  for (int j = 0; j < count_; ++j) {
    totals.h += h[j];
    totals.hx += h[j] * x[j];
  }
  if (!(range.high > range.low)) return {.scale = 0, .minimum = range.low, .minimum_cost = totals.h};
  constexpr int steps = 15, shifts = 3;
  BestFit best;
  try_inverse(x, h, totals, high_ / (range.high - range.low), range.low, best);
  for (int shift = 0; shift < shifts; ++shift) {
    const float low =
        range.low * (1 - 0.06f * static_cast<float>(shift)) + range.high * 0.06f * static_cast<float>(shift);
    for (int i = 0; i <= steps; ++i) {
      const float part = 0.9f * widest_ + (narrowest_ - 0.9f * widest_) * static_cast<float>(i) / steps;
      try_inverse(x, h, totals, high_ * part / (range.high - low), low, best);
    }
    if (layout_.bits > 6) break;
  }
  refine(x, h, totals, best);
  return best.fit;
}

GroupFit GroupFitter::search(const float* x, const float* h) const {
  return has_minimum_ ? search_minimum(x, h) : search_symmetric(x, h);
}

GroupFit GroupFitter::reach(const float* x, const float* h) const {
  Range range = range_of(x, count_);
  GroupFit fit;
  if (has_minimum_) {
    if (below_zero_) range.low = std::min(range.low, 0.0f);
    fit.minimum = range.low;
    fit.scale = (range.high - range.low) / high_;
  } else {
    const float end = std::fabs(range.low) >= std::fabs(range.high) ? range.low : range.high,
                peak = positive_ ? std::fabs(end) : end;
    fit.scale = -low_ > high_ ? peak / low_ : peak / high_;
  }
  const GroupSums s = sums(x, h, fit.scale, fit.minimum);
  fit.scale_cost = s.qq;
  for (int j = 0; j < count_; ++j) fit.minimum_cost += h[j];
  return fit;
}

}  // namespace nibble::quant
