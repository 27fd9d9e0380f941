// SPDX-License-Identifier: Apache-2.0
// What is done with the statistics of inputs while rows are rounded. Private to quant/.
#pragma once

#include <cstdint>
#include <vector>

#include "quant/fit.h"

namespace nibble::quant {

/// Throws Error when they are not those of k inputs.
void check_inputs(const InputStatistics& inputs, int64_t k);
/// How much the weights of each input matter, (k): its mean square over the mean of all.
std::vector<float> importance_of(const InputStatistics& inputs, int64_t k);

/// What weight `at` of a row, in the order of `feedback`, is short of is made good by those behind it, but for the cost
/// that is returned.
double feed_back(const InputStatistics& inputs, int64_t at, float error, std::vector<float>& row);

/// Rounds the weights of a row in the order of `feedback`: round(j, x) is given the weight of input j with the errors
/// of those before it made good, and returns what its code leaves. `row` is scratch of k floats. Returns the cost.
template <class Round>
double round_in_order(const InputStatistics& inputs, const float* in, int64_t k, std::vector<float>& row,
                      const Round& round) {
  const auto input_at = [&](int64_t p) {
    return inputs.order.empty() ? p : int64_t{inputs.order[static_cast<size_t>(p)]};
  };
  for (int64_t p = 0; p < k; ++p) row[static_cast<size_t>(p)] = in[input_at(p)];
  double cost = 0;
  for (int64_t p = 0; p < k; ++p) cost += feed_back(inputs, p, round(input_at(p), row[static_cast<size_t>(p)]), row);
  return cost;
}

}  // namespace nibble::quant
