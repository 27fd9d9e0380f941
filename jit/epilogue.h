// SPDX-License-Identifier: Apache-2.0
// What follows the sums of a matmul (docs/ops.md): + bias, activation or gate, + residual, store. One row of one panel
// costs a few instructions against thousands in its sums, so this is plain AVX2 for every instruction set, and so the
// same bits.
#pragma once

#include <cstdint>
#include <string_view>

#include "tensor/dtype.h"

namespace nibble::jit {

enum class Function : uint8_t { none, silu, gelu, gelu_tanh, relu };
/// The activation of that name, "" = none. Throws Error on another name.
Function parse_function(std::string_view name);

/// A tile of rows x columns; strides from row to row, in elements of what they belong to.
struct FinishTile {
  int rows = 0, columns = 0;
  Function function = Function::none;  ///< of the activation, or of the gate
  const float* totals = nullptr;
  const float* gated = nullptr;        ///< not null: result = function(totals + bias) * (gated + gated_bias)
  int64_t totals_stride = 0;           ///< of both; a multiple of 8 and not less than the columns rounded up to 8
  const float* bias = nullptr;         ///< one per column, may be null
  const float* gated_bias = nullptr;
  const void* residual = nullptr;      ///< may be null and may be `out` itself
  int64_t residual_stride = 0;
  DType residual_type = DType::f32;    ///< f32, f16 or bf16
  float* out = nullptr;
  int64_t out_stride = 0;
};
/// Needs AVX2, FMA and F16C. Nothing outside the columns is read (totals excepted) or written.
void finish_tile(const FinishTile& tile);

}  // namespace nibble::jit
