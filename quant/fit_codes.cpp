// SPDX-License-Identifier: Apache-2.0
#include "quant/fit_codes.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "quant/codes.h"
#include "quant/feedback.h"
#include "quant/fit_group.h"
#include "quant/formats/formats.h"
#include "tensor/check.h"

namespace nibble::quant {

namespace {

constexpr int lanes = 8;

/// The layout by which a search is made: zero points are minima that are multiples of the scale.
QuantLayout searched(QuantLayout layout) {
  if (layout.zero_point == ZeroPoint::integer) layout.zero_point = ZeroPoint::minimum;
  return layout;
}

bool is_float8(const QuantLayout& layout) { return layout.codebook >= books::e4m3; }

/// Groups of one size.
class GroupCoder {
 public:
  GroupCoder(const CodedTarget& target, int64_t count)
      : target_(target),
        layout_(target.layout),
        count_(count),
        book_(float_book(layout_.codebook)),
        x_(padded(count)),
        h_(padded(count)),
        codes_(padded(count)),
        fitter_(is_float8(layout_) ? QuantLayout{} : searched(layout_), static_cast<int>(padded(count))) {}

  struct Scale {
    float scale = 0, offset = 0;
  };

  Scale find(const float* x, const float* h, bool search) {
    // to whole lanes by weights that do not count
    std::copy_n(x, count_, x_.begin());
    std::copy_n(h, count_, h_.begin());
    std::fill(x_.begin() + count_, x_.end(), x[count_ - 1]);
    std::fill(h_.begin() + count_, h_.end(), 0.0f);
    best_ = {};
    error_ = INFINITY;
    if (is_float8(layout_)) return from_numbers();
    const GroupFit reached = fitter_.reach(x_.data(), h_.data());
    if (layout_.zero_point != ZeroPoint::minimum) consider(from_numbers());
    consider(reached.scale, reached.minimum);
    if (!search) return best_;
    const GroupFit fit = fitter_.search(x_.data(), h_.data());
    consider(fit.scale, fit.minimum);
    refine();
    return best_;
  }

  uint8_t code(float x, const Scale& s) const {
    if (is_float8(layout_)) return nearest_code(*book_, s.scale != 0 ? x / s.scale : 0.0f);
    return fitter_.code(x, s.scale, minimum(s));
  }

  float value(uint8_t code, const Scale& s) const {
    if (is_float8(layout_)) return book_->value(code) * book_->unit * s.scale;
    if (layout_.zero_point == ZeroPoint::integer) return s.scale * (static_cast<float>(code) - s.offset);
    return fitter_.value(code, s.scale, minimum(s));
  }

 private:
  static size_t padded(int64_t count) { return static_cast<size_t>((count + lanes - 1) / lanes * lanes); }

  /// As fitter_ has it.
  float minimum(const Scale& s) const {
    if (layout_.zero_point == ZeroPoint::minimum) return s.offset;
    return layout_.zero_point == ZeroPoint::integer ? -(s.scale * s.offset) : 0.0f;
  }

  float rounded(float scale) const {
    return rounded_to(layout_.scale, target_.round_scale != nullptr ? target_.round_scale(scale) : scale);
  }

  Scale from_numbers() {
    QuantLayout one = layout_;
    one.group = 0;
    Scale s;
    quantize_numbers(one, x_.data(), 1, static_cast<int64_t>(x_.size()), codes_.data(), &s.scale, &s.offset);
    if (target_.round_scale != nullptr) s.scale = rounded(s.scale);
    return s;
  }

  void consider(const Scale& s) {
    const float error = fitter_.error(x_.data(), h_.data(), s.scale, minimum(s));
    if (!(error < error_)) return;
    error_ = error;
    best_ = s;
  }

  /// A scale that is not rounded yet; of zero points the two nearest are tried.
  void consider(float scale, float minimum) {
    const float d = rounded(scale);
    if (!std::isfinite(d)) return;
    const auto top = static_cast<float>((1 << layout_.bits) - 1);
    switch (layout_.zero_point) {
      case ZeroPoint::symmetric:
        return consider({d, layout_.codebook != 0 ? 0.0f : static_cast<float>(1 << (layout_.bits - 1))});
      case ZeroPoint::minimum:
        return consider({d, rounded_to(layout_.scale, minimum)});
      case ZeroPoint::integer:
        // a negative step would turn codes around
        if (!(d > 0)) return;
        for (const float zero : {std::floor(-minimum / d), std::ceil(-minimum / d)})
          consider({d, std::clamp(zero, 0.0f, top)});
    }
  }

  /// The best scale for the codes there are, and scales beside it where they are coarse.
  void refine() {
    for (int round = 0; round < 4; ++round) {
      const Scale before = best_;
      const GroupSums s = fitter_.sums(x_.data(), h_.data(), before.scale, minimum(before));
      float hs = 0, hx = 0;
      for (size_t j = 0; j < x_.size(); ++j) hs += h_[j], hx += h_[j] * x_[j];
      if (layout_.zero_point == ZeroPoint::minimum) {
        if (hs > 0) consider(before.scale, (hx - before.scale * s.q) / hs);
      } else if (layout_.zero_point == ZeroPoint::integer) {
        const float z = before.offset, qq = s.qq - 2 * z * s.q + z * z * hs;
        if (qq > 0) consider({rounded((s.qx - z * hx) / qq), z});
        for (const float step : {-1.0f, 1.0f})
          if (z + step >= 0 && z + step < static_cast<float>(1 << layout_.bits)) consider({before.scale, z + step});
      }
      if (target_.round_scale != nullptr || layout_.scale == DType::bf16)
        for (const float step : {-0x1p-4f, -0x1p-8f, 0x1p-8f, 0x1p-4f, 0x1p-3f})
          consider({rounded(before.scale * (1 + step)), before.offset});
      if (before.scale == best_.scale && before.offset == best_.offset) return;
    }
  }

  const CodedTarget& target_;
  const QuantLayout& layout_;
  int64_t count_;
  const FloatBook* book_;
  std::vector<float> x_, h_;
  std::vector<uint8_t> codes_;
  GroupFitter fitter_;
  Scale best_;
  float error_ = 0;
};

}  // namespace

double fit_codes(const CodedTarget& target, const float* in, int64_t rows, int64_t k, const InputStatistics& inputs,
                 uint8_t* codes, float* scales, float* offsets, bool search) {
  check_inputs(inputs, k);
  const int64_t group = target.group(k), groups = target.groups(k);
  const std::vector<float> importance = importance_of(inputs, k);
  std::vector<float> row(static_cast<size_t>(k));
  GroupCoder whole(target, group), rest(target, k - (groups - 1) * group);
  std::vector<GroupCoder::Scale> found(static_cast<size_t>(groups));
  double cost = 0;
  for (int64_t r = 0; r < rows; ++r, in += k, codes += k) {
    for (int64_t j = 0; j < k; ++j) NIBBLE_CHECK(std::isfinite(in[j]), "weight (", r, ", ", j, ") is ", in[j]);
    const auto coder = [&](int64_t g) -> GroupCoder& { return g + 1 < groups ? whole : rest; };
    for (int64_t g = 0; g < groups; ++g) {
      const auto s = found[static_cast<size_t>(g)] =
          coder(g).find(in + g * group, importance.data() + g * group, search);
      NIBBLE_CHECK(std::isfinite(s.scale) && std::isfinite(s.offset), "weights (", r, ", ", g * group, " to ",
                   std::min(k, (g + 1) * group), ") need a scale beyond ",
                   target.round_scale != nullptr ? "fp8" : name(target.layout.scale));
      *scales++ = s.scale;
      *offsets++ = s.offset;
    }
    const auto round = [&](int64_t j, float x) {
      const int64_t g = j / group;
      codes[j] = coder(g).code(x, found[static_cast<size_t>(g)]);
      return x - coder(g).value(codes[j], found[static_cast<size_t>(g)]);
    };
    if (!inputs.feedback.empty()) {
      cost += round_in_order(inputs, in, k, row, round);
      continue;
    }
    for (int64_t j = 0; j < k; ++j) {
      const float error = round(j, in[j]);
      cost +=
          double{error} * double{error} * (inputs.squares.empty() ? 1 : double{inputs.squares[static_cast<size_t>(j)]});
    }
  }
  return cost;
}

}  // namespace nibble::quant
