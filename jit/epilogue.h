// SPDX-License-Identifier: Apache-2.0
// What follows the sums of a matmul (docs/ops.md): + bias, activation or gate, + residual, store. jit/emit_finish.h
// emits it behind the sums of a kernel.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "tensor/dtype.h"

namespace nibble::jit {

enum class Function : uint8_t { none, silu, gelu, gelu_tanh, relu };
/// The activation of that name, "" = none. Throws Error on another name.
Function parse_function(std::string_view name);

/// What a kernel does with its totals once they are complete; part of its key.
struct Epilogue {
  Function function = Function::none;  ///< of the activation, or of the gate
  uint8_t gate = 0;                    ///< 1: result = function(gate totals + gate bias) * (totals + bias)
  uint8_t bias = 0;
  uint8_t residual = 0;                ///< 0: none; else 1 + its DType: f32, f16 or bf16
  bool operator==(const Epilogue&) const = default;
  DType residual_type() const { return static_cast<DType>(residual - 1); }
  bool narrow_residual() const { return residual && residual_type() != DType::f32; }
};
static_assert(std::has_unique_object_representations_v<Epilogue>);
/// "" for a plain store, else "_bias_silu_gate_residual_f16": what a kernel's name ends in before its instruction set.
std::string name(const Epilogue& epilogue);
/// Every epilogue there is.
std::vector<Epilogue> all_epilogues();

/// Where the finishing of a tile reads and writes; part of a kernel's arguments. Nothing outside the columns is read
/// (gate totals excepted) or written.
struct FinishArgs {
  float* result = nullptr;  ///< row 0, first column; null: the totals are not complete, or nobody's but the tile's
  int64_t result_stride = 0;           ///< bytes from row to row
  int64_t columns = 0;                 ///< of the tile that exist, from 1 to all
  const float* bias = nullptr;         ///< at the first column
  const float* gate_totals = nullptr;  ///< a tile like the kernel's own
  const float* gate_bias = nullptr;
  const void* residual = nullptr;      ///< like result, and may be it
  int64_t residual_stride = 0;         ///< bytes
};

}  // namespace nibble::jit
