// SPDX-License-Identifier: Apache-2.0
#include "quant/feedback.h"

#include "tensor/check.h"
#include "tensor/clones.h"

namespace nibble::quant {

namespace {

/// y -= factor * u
NIBBLE_CLONES("avx2", "default") void subtract(float* y, const float* u, float factor, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] -= factor * u[i];
}

}  // namespace

void check_inputs(const InputStatistics& inputs, int64_t k) {
  const auto size = static_cast<size_t>(k);
  NIBBLE_CHECK((inputs.squares.empty() || inputs.squares.size() == size) &&
                   (inputs.feedback.empty() || inputs.feedback.size() == size * size) &&
                   (inputs.order.empty() || (inputs.order.size() == size && !inputs.feedback.empty())),
               "statistics of ", inputs.squares.size(), " inputs for rows of ", k, " weights");
}

std::vector<float> importance_of(const InputStatistics& inputs, int64_t k) {
  std::vector<float> importance(static_cast<size_t>(k), 1.0f);
  double mean = 0;
  for (float square : inputs.squares) mean += square / static_cast<double>(k);
  // inputs that never came in the calibration text still count a little
  for (size_t j = 0; j < inputs.squares.size() && mean > 0; ++j)
    importance[j] = static_cast<float>(inputs.squares[j] / mean + 1e-3);
  return importance;
}

double feed_back(const InputStatistics& inputs, int64_t at, float error, std::vector<float>& row) {
  const auto k = static_cast<int64_t>(row.size());
  const float* u = inputs.feedback.data() + at * k;
  const float factor = error / u[at];
  subtract(row.data() + at + 1, u + at + 1, factor, k - at - 1);
  return double{factor} * double{factor};
}

}  // namespace nibble::quant
