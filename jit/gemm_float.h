// SPDX-License-Identifier: Apache-2.0
// Microkernels C (+)= A x B of f32 rows with f16, bf16 or f32 columns in panels of 16. Every element of C is one chain
// fma(a[k], b[k], c) with k rising, so neither tile, instruction set nor a cut along k changes a bit.
// With i8 columns both sides come in pairs of k: A holds two int16, B two int8 codes of each column. Their sum s over
// all k is an exact int32 (the caller sees to it that it fits), worth C = (s * row scale) * column scale, or,
// accumulating, C = fma(s, row scale, C). i32 columns are such codes widened: two int16 in 32 bits.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "jit/code.h"
#include "tensor/cpu.h"
#include "tensor/dtype.h"

namespace nibble::jit {

/// Read by the generated code: field order matters. Strides in bytes.
struct GemmFloatArgs {
  const void* a;         ///< rows of k floats, or of k pairs of int16
  int64_t a_stride;
  const void* b;         ///< per k 16 elements, or pairs of codes, of each panel
  int64_t b_stride;      ///< from one k to the next
  int64_t b_panel;       ///< from one panel to the next
  int64_t b_ahead;       ///< what is prefetched, from each k of B; 0 for nothing new
  float* c;              ///< 16 floats per panel, side by side
  int64_t c_stride;
  int64_t k;             ///< elements or pairs
  int64_t accumulate;    ///< 0: C starts at zero
  const float* row_scales = nullptr;     ///< i8: one per row of A
  const float* column_scales = nullptr;  ///< i8, not accumulating: one per column
  int64_t tiles = 1;  ///< of the kernel's rows, below each other; with more than one a, c, row_scales and tiles change
};

/// All that the emitted bytes depend on.
struct GemmFloatKey {
  Isa isa = Isa::avx2;  ///< avx2 or avx512vnni
  DType b = DType::f16;  ///< f32, f16, bf16, i8 or i32
  uint8_t rows = 1, panels = 1;
  bool operator==(const GemmFloatKey&) const = default;
};
std::string name(
    const GemmFloatKey& key);  ///< "gemm_f32_f16_f32_6x16x1_avx2", "gemm_i16_i8_f32_6x16x1_avx2"; i32 is called i16
/// From the process's cache. Throws Error when the registers don't suffice. Thread safe.
const Code& gemm_float(const GemmFloatKey& key);
/// Everything that GemmFloat uses; nothing for instruction sets without kernels of their own.
std::vector<GemmFloatKey> gemm_float_keys(Isa isa);
Code emit_gemm_float(const GemmFloatKey& key);

/// The kernels of one instruction set and element type, for any number of rows and panels.
class GemmFloat {
 public:
  static constexpr int max_rows = 12, max_panels = 4;
  GemmFloat() = default;
  GemmFloat(Isa isa, DType b);
  int rows_per_tile() const { return rows_; }
  /// Panels that the widest kernel for this many rows takes at once.
  int panels_per_tile(int rows) const;
  /// args.a, .b and .c at the first row and panel; tiles are set here.
  void run(GemmFloatArgs args, int64_t rows, int64_t panels) const;

 private:
  /// Leaves args at the rows below.
  void run_tiles(GemmFloatArgs& args, int rows, int64_t tiles, int64_t panels) const;
  int rows_ = 0;
  const Code* code_[max_rows + 1][max_panels + 1] = {};
};

}  // namespace nibble::jit
