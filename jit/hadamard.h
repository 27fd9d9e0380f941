// SPDX-License-Identifier: Apache-2.0
// The Walsh-Hadamard transform that spreads a row's outliers before it becomes int8 codes (docs/ops.md, "Attention";
// QuaRot, arXiv 2404.00456).
#pragma once

#include <cstdint>

namespace nibble::jit {

/// The largest power of two that divides `count`.
constexpr int64_t hadamard_block(int64_t count) { return count & -count; }

/// Every block of the row in place, not normalised: done twice it multiplies by hadamard_block(count). Each result is a
/// chain of single additions, so the bits do not depend on how it is computed. Needs AVX2.
void hadamard(float* x, int64_t count);

}  // namespace nibble::jit
