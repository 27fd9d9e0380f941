// SPDX-License-Identifier: Apache-2.0
// Microkernels of f32 rows with weights of a codebook of floats (tensor/panel.h: FloatBook), straight from their
// panels: each weight is made as quant/format.h says, and each sum is the chain of fma that jit/gemm_float.h makes of
// the same floats.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "jit/code.h"
#include "tensor/cpu.h"
#include "tensor/panel.h"

namespace nibble::jit {

/// Read by the generated code: field order matters. Strides in bytes.
struct GemmCodedArgs {
  const float* a;        ///< rows of k floats; not read by an expander
  int64_t a_stride;
  const void* codes;     ///< the first panel's, at the first k, where a group begins
  const void* scales;    ///< that group's, 16 floats
  int64_t panel;         ///< from one panel to the next
  float* c;              ///< 16 floats per panel, side by side; of an expander 16 floats per k
  int64_t c_stride;
  int64_t groups;        ///< at least 1
  int64_t lines;         ///< of 64 bytes per group, at least 1: 8 k with 4 bits, 4 k with 8
  int64_t accumulate;    ///< 0: C starts at zero
};

/// All that the emitted bytes depend on.
struct GemmCodedKey {
  Isa isa = Isa::avx2;  ///< avx2 or avx512vnni
  uint8_t book = 0;     ///< QuantLayout::codebook
  DType product = DType::f32;
  uint8_t rows = 1, panels = 1;  ///< rows 0: the expander, which writes the floats of one panel
  bool operator==(const GemmCodedKey&) const = default;
};
std::string name(const GemmCodedKey& key);  ///< "gemm_f32_nf4_float_f32_1x32x1_avx2", "expand_e4m3_to_bf16_f32_avx2"
/// From the process's cache. Thread safe.
const Code& gemm_coded(const GemmCodedKey& key);
/// Everything that GemmCoded uses; nothing for instruction sets without kernels of their own.
std::vector<GemmCodedKey> gemm_coded_keys(Isa isa);
Code emit_gemm_coded(const GemmCodedKey& key);

/// The kernels of one instruction set and layout.
class GemmCoded {
 public:
  static constexpr int max_rows = 4, max_panels = 4;
  GemmCoded() = default;
  GemmCoded(Isa isa, const QuantLayout& layout);
  /// More are better expanded.
  int rows() const { return rows_; }
  /// Panels that the widest kernel for this many rows takes at once.
  int panels_per_tile(int rows) const;

  /// Where a range of k of some panels stands. `k` begins a stored group; `depth` ends one, or the matrix.
  struct Range {
    const std::byte* panel;  ///< the first one
    const PanelGeometry& geometry;
    int64_t panels, k, depth;
  };
  /// c (rows, 16 * panels) = or, with k > 0, += a (rows, depth) times the range. At most rows() rows; strides in bytes.
  void run(const Range& range, const float* a, int64_t a_stride, int rows, float* c, int64_t c_stride) const;
  /// The range of its first panel as (depth, 16) floats.
  void expand(const Range& range, float* out) const;

 private:
  void for_each_part(const Range& range, GemmCodedArgs args, const Code& code) const;
  int rows_ = 0, line_k_ = 8;
  const Code* code_[max_rows + 1][max_panels + 1] = {};
};

}  // namespace nibble::jit
