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
};

/// Codes and a scale of one group as a block of a native type.
void write_native_block(const BlockType& type, const uint8_t* codes, float scale, std::byte* block);

/// Rows (rows, k) as blocks of a native type. Per group the scale, rounded as stored, minimises the sum of
/// squares[j] * error² as far as a search over candidates finds it. Rows do not depend on each other. Throws Error for
/// values that are not finite or need a scale beyond f16.
void fit_rows(const BlockType& type, const float* in, int64_t rows, int64_t k, const InputStatistics& inputs,
              std::byte* blocks);

/// The `feedback` of k inputs from the sums of x xᵀ, (k, k) in full, in place; `damping` is added to the diagonal, as a
/// share of its mean. False, with the matrix destroyed, when it can't be factored.
bool factor_feedback(std::vector<float>& moments, int64_t k, double damping);

}  // namespace nibble::quant
