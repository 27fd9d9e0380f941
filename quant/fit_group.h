// SPDX-License-Identifier: Apache-2.0
// The search for scales: of one group of weights, and of the groups of a block. Private to quant/.
#pragma once

#include <cstdint>

#include "quant/format.h"

namespace nibble::quant {

/// Sums over a group of h q, h q² and h q x, with h how much each weight matters and q the number its code stands for.
struct GroupSums {
  float q = 0, qq = 0, qx = 0;
};

struct GroupFit {
  float scale = 0, minimum = 0;
  float scale_cost = 0, minimum_cost = 0;  ///< times the square of a change: what it adds to the error, codes kept
};

struct BestFit;

/// A group against the numbers that codes of a layout stand for. h and x have as many elements as a group.
class GroupFitter {
 public:
  /// Minima are kept from rising above 0 where they are stored as multiples of a negative number.
  /// Not for books of floats of 8 bits. `count`: weights in a group, a multiple of 8; 0: layout.group.
  explicit GroupFitter(const QuantLayout& layout, int count = 0);

  /// The scale and minimum with the least weighted error that a search over candidates finds; not rounded.
  GroupFit search(const float* x, const float* h) const;
  /// The same without a search: the codes reach from end to end.
  GroupFit reach(const float* x, const float* h) const;
  GroupSums sums(const float* x, const float* h, float scale, float minimum) const;
  /// Of the codes that are nearest.
  float error(const float* x, const float* h, float scale, float minimum) const;
  uint8_t code(float x, float scale, float minimum) const;
  float value(uint8_t code, float scale, float minimum) const;

 private:
  struct Totals;
  void try_inverse(const float* x, const float* h, const Totals& totals, float inverse, float minimum,
                   BestFit& best) const;
  void refine(const float* x, const float* h, const Totals& totals, BestFit& best) const;
  GroupFit search_symmetric(const float* x, const float* h) const;
  GroupFit search_minimum(const float* x, const float* h) const;
  GroupSums sums_of_inverse(const float* x, const float* h, float inverse, float minimum) const;

  QuantLayout layout_;
  int count_;
  bool has_minimum_, below_zero_, positive_;  ///< positive_: a book of floats, whose scales have no sign
  float low_ = 0, high_ = 0;        ///< numbers that codes stand for
  float narrowest_, widest_;        ///< steps to try, as shares of the one that reaches the peak
  int levels_ = 0;                  ///< of a codebook; 0: numbers are evenly spaced
  float level_[16] = {}, middle_[16] = {};  ///< ascending; middle_[i] lies between level_[i] and level_[i + 1]
  uint8_t level_code_[16] = {};
};

/// Scales, minima and multipliers of a block of `type` for weights x that matter as h says; no codes. `search`: by
/// GroupFitter::search, and multipliers that are tried one by one; else by reach.
void fit_scales(const BlockType& type, const GroupFitter& fitter, const float* x, const float* h, bool search,
                BlockCodes& out);

/// The scale and minimum of group g of a block, as kernels use them.
inline GroupFit group_scale(const QuantLayout& layout, const BlockCodes& block, int g) {
  if (layout.sub_groups == 0) return {.scale = block.scale[g], .minimum = block.minimum[g]};
  return {.scale = block.scale[0] * static_cast<float>(block.sub_scale[g]),
          .minimum = block.minimum[0] * static_cast<float>(block.sub_minimum[g])};
}

}  // namespace nibble::quant
