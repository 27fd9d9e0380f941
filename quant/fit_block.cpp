// SPDX-License-Identifier: Apache-2.0
// Scales of a block: rounded to what the type can store, and with sub-groups one number for the block times a small
// integer for each group.
#include <algorithm>
#include <cmath>

#include "quant/fit_group.h"
#include "quant/formats/formats.h"

namespace nibble::quant {

namespace {

int multiplier(float value, float unit, int low, int high) {
  if (unit == 0) return 0;
  return static_cast<int>(std::lrint(std::clamp(value / unit, static_cast<float>(low), static_cast<float>(high))));
}

/// The number of which integers in [low, high] give the values with the least cost * error²; rounded to f16.
float common_unit(const float* values, const float* costs, int count, int low, int high) {
  float peak = 0;
  for (int g = 0; g < count; ++g)
    if (std::fabs(values[g]) > std::fabs(peak)) peak = values[g];
  if (peak == 0) return 0;
  float best_unit = 0, best_gain = 0;
  const auto try_unit = [&](float unit) {
    float lv = 0, ll = 0;
    for (int g = 0; g < count; ++g) {
      const auto l = static_cast<float>(multiplier(values[g], unit, low, high));
      lv += costs[g] * l * values[g];
      ll += costs[g] * l * l;
    }
    if (ll > 0 && lv * lv / ll > best_gain) best_gain = lv * lv / ll, best_unit = lv / ll;
  };
  constexpr int steps = 20;
  for (const int end : {high, low}) {
    for (int i = 0; i < steps && end != 0; ++i)
      try_unit(peak / (static_cast<float>(end) * (1.05f - 0.02f * static_cast<float>(i))));
  }
  return rounded_to(DType::f16, best_unit);
}

class BlockFitter {
 public:
  BlockFitter(const BlockType& type, const GroupFitter& fitter, const float* x, const float* h, BlockCodes& out)
      : type_(type),
        layout_(type.format->layout),
        fitter_(fitter),
        x_(x),
        h_(h),
        out_(out),
        groups_(type.block_elements / layout_.group) {}

  void fit(bool search) {
    GroupFit fits[16];
    for (int g = 0; g < groups_; ++g) fits[g] = search ? fitter_.search(x(g), h(g)) : fitter_.reach(x(g), h(g));
    if (layout_.sub_groups == 0) {
      for (int g = 0; g < groups_; ++g) round_scale(g, fits[g], search);
      return;
    }
    choose_multipliers(fits);
    for (int round = 0; search && round < 2; ++round) {
      refine_multipliers();
      if (!refine_units()) break;
    }
  }

 private:
  const float* x(int g) const { return x_ + g * layout_.group; }
  const float* h(int g) const { return h_ + g * layout_.group; }
  bool has_minimum() const { return layout_.zero_point == ZeroPoint::minimum; }

  void set(int g, const GroupFit& fit) {
    out_.scale[g] = rounded_to(layout_.scale, type_.round_scale != nullptr ? type_.round_scale(fit.scale) : fit.scale);
    out_.minimum[g] = rounded_to(layout_.scale, fit.minimum);
  }

  /// Where codes are finer than scales, what was best may not be once it is rounded.
  void round_scale(int g, const GroupFit& fit, bool search) {
    set(g, fit);
    const bool coarse = type_.round_scale != nullptr;
    if (!search || (!coarse && layout_.scale != DType::bf16)) return;
    GroupFit best{.scale = out_.scale[g], .minimum = out_.minimum[g]};
    float error = group_error(g);
    const auto try_fit = [&](const GroupFit& other) {
      set(g, other);
      if (const float e = group_error(g); e < error)
        error = e, best = {.scale = out_.scale[g], .minimum = out_.minimum[g]};
    };
    try_fit(fitter_.reach(x(g), h(g)));
    const GroupFit middle = best;
    const float step = coarse ? 0x1p-4f : 0x1p-8f;
    for (const float part : {1 - step, 1 + step, 1 + 2 * step}) {
      if (!coarse && part > 1 + step) continue;
      const GroupFit other{.scale = middle.scale * part, .minimum = middle.minimum};
      try_fit(other);
      if (coarse && has_minimum())
        try_fit({.scale = other.scale, .minimum = minimum_for(g, out_.scale[g], other.minimum)});
    }
    set(g, best);
  }

  /// The best minimum for a scale and the codes that it gives with `minimum`.
  float minimum_for(int g, float scale, float minimum) const {
    const GroupSums s = fitter_.sums(x(g), h(g), scale, minimum);
    float hx = 0, hs = 0;
    for (int j = 0; j < layout_.group; ++j) hs += h(g)[j], hx += h(g)[j] * x(g)[j];
    return hs > 0 ? (hx - scale * s.q) / hs : minimum;
  }

  void choose_multipliers(const GroupFit* fits) {
    float values[16] = {}, costs[16] = {};
    const int low = type_.multiplier_low, high = type_.multiplier_high;
    for (int g = 0; g < groups_; ++g) values[g] = fits[g].scale, costs[g] = fits[g].scale_cost;
    out_.scale[0] = common_unit(values, costs, groups_, low, high);
    for (int g = 0; g < groups_; ++g)
      out_.sub_scale[g] = static_cast<int8_t>(multiplier(values[g], out_.scale[0], low, high));
    if (!has_minimum()) return;
    for (int g = 0; g < groups_; ++g) values[g] = -fits[g].minimum, costs[g] = fits[g].minimum_cost;
    out_.minimum[0] = -common_unit(values, costs, groups_, low, high);
    for (int g = 0; g < groups_; ++g)
      out_.sub_minimum[g] = static_cast<int8_t>(multiplier(values[g], -out_.minimum[0], low, high));
  }

  float group_error(int g) const {
    const GroupFit s = group_scale(layout_, out_, g);
    return fitter_.error(x(g), h(g), s.scale, s.minimum);
  }

  float block_error() const {
    float sum = 0;
    for (int g = 0; g < groups_; ++g) sum += group_error(g);
    return sum;
  }

  /// Steps of one in either multiplier of each group, as long as they help.
  void refine_multipliers() {
    for (int g = 0; g < groups_; ++g) {
      float best = group_error(g);
      for (bool better = true; better;) {
        better = false;
        for (int8_t* number : {out_.sub_scale, out_.sub_minimum}) {
          if (number == out_.sub_minimum && !has_minimum()) continue;
          for (const int step : {-1, 1}) {
            const int8_t before = number[g];
            if (before + step < type_.multiplier_low || before + step > type_.multiplier_high) continue;
            number[g] = static_cast<int8_t>(before + step);
            const float error = group_error(g);
            if (error < best) best = error, better = true;
            else number[g] = before;
          }
        }
      }
    }
  }

  /// The best units for the codes and multipliers there are; false when they are no better than those there were.
  bool refine_units() {
    double ll = 0, lt = 0, tt = 0, lx = 0, tx = 0;
    for (int g = 0; g < groups_; ++g) {
      const GroupFit s = group_scale(layout_, out_, g);
      const GroupSums sums = fitter_.sums(x(g), h(g), s.scale, s.minimum);
      const double l = out_.sub_scale[g], t = has_minimum() ? out_.sub_minimum[g] : 0;
      double hs = 0, hx = 0;
      for (int j = 0; j < layout_.group; ++j) hs += h(g)[j], hx += double{h(g)[j]} * double{x(g)[j]};
      ll += l * l * double{sums.qq}, lt += l * t * double{sums.q}, tt += t * t * hs;
      lx += l * double{sums.qx}, tx += t * hx;
    }
    const float before = block_error(), scale = out_.scale[0], minimum = out_.minimum[0];
    const double determinant = ll * tt - lt * lt;
    if (has_minimum() && determinant > 0) {
      out_.scale[0] = rounded_to(DType::f16, static_cast<float>((lx * tt - tx * lt) / determinant));
      out_.minimum[0] = rounded_to(DType::f16, static_cast<float>((tx * ll - lx * lt) / determinant));
    } else if (ll > 0) {
      out_.scale[0] = rounded_to(layout_.scale, static_cast<float>((lx - double{minimum} * lt) / ll));
    }
    if (block_error() < before && (!has_minimum() || (out_.scale[0] >= 0 && out_.minimum[0] <= 0))) return true;
    out_.scale[0] = scale, out_.minimum[0] = minimum;
    return false;
  }

  const BlockType& type_;
  const QuantLayout& layout_;
  const GroupFitter& fitter_;
  const float *x_, *h_;
  BlockCodes& out_;
  int groups_;
};

}  // namespace

void fit_scales(const BlockType& type, const GroupFitter& fitter, const float* x, const float* h, bool search,
                BlockCodes& out) {
  BlockFitter(type, fitter, x, h, out).fit(search);
}

}  // namespace nibble::quant
