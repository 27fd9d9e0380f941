// SPDX-License-Identifier: Apache-2.0
// Better rounding than to nearest: scales that are searched for, errors weighed by how much each weight matters, and
// errors of a column made good in the columns that follow (GPTQ, arXiv 2210.17323).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "quant/format.h"

namespace nibble::quant {

/// What is known of the inputs of a matrix (n, k).
struct InputStatistics {
  std::vector<float> squares;  ///< (k): mean of x[j]²; empty: all alike
  /// (k, k), upper triangle: the Cholesky factor U of the inverse of mean(x xᵀ) + damping, so that inverse = Uᵀ U;
  /// empty: errors are not fed back
  std::vector<float> feedback;
  /// Rows and columns of `feedback` are the inputs order[0], order[1], ...: weights are rounded in that order, with
  /// scales found before any error is fed back. Empty: as they stand, scales following the errors.
  std::vector<int32_t> order;
};

/// Whether fit_rows can make blocks of the type: floats, and types with `write`.
bool can_fit(const BlockType& type);

/// Rows (rows, k) as blocks of a type. Per block the scales, rounded as stored, minimise the sum of squares[j] * error²
/// as far as a search over candidates finds it; without `search` codes just reach from end to end. Rows do not depend
/// on each other. The result is what it costs: the sum over rows of the mean squared error of their products, as far as
/// the statistics tell. Throws Error for types that cannot be fitted and values that are not finite or need a scale
/// beyond its type.
double fit_rows(const BlockType& type, const float* in, int64_t rows, int64_t k, const InputStatistics& inputs,
              std::byte* blocks, bool search = true);

/// The `feedback` of k inputs from the mean of x xᵀ, (k, k) in full, in place; `damping` is added to the diagonal, as a
/// share of its mean. False, with the matrix destroyed, when it can't be factored.
bool factor_feedback(std::vector<float>& moments, int64_t k, double damping);
/// The inputs by falling mean square, and moments (k, k) brought into that order.
std::vector<int32_t> order_moments(std::vector<float>& moments, int64_t k);

}  // namespace nibble::quant
