// SPDX-License-Identifier: Apache-2.0
// f32 rows times float weights (tensor/panel.h: float_weights), whatever their panels hold: floats, or codes of a book
// of floats, which few rows read as they are and many expanded to f32 in cache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "jit/gemm_coded.h"
#include "jit/gemm_float.h"
#include "tensor/panel.h"

namespace nibble::jit {

class FloatPanels {
 public:
  FloatPanels(Isa isa, const QuantLayout& layout, int64_t n, int64_t k);
  const PanelGeometry& geometry() const { return geometry_; }
  int rows_per_tile() const { return gemm_.rows_per_tile(); }
  /// What multiply() needs, on 64 bytes; a multiple of 64.
  size_t scratch_bytes() const;

  /// Rows times columns [16 * panel, 16 * (panel + panels)) for a range of k. Strides in bytes.
  struct Block {
    const float* a;  ///< at the first k
    int64_t a_stride, rows;
    int64_t panel, panels;
    int64_t k, depth;  ///< k a multiple of max_group; depth too, or up to the end
    float* c;          ///< (rows, 16 * panels); with k > 0 the range is added
    int64_t c_stride;
  };
  void multiply(const std::byte* weight, const Block& block, std::byte* scratch) const;

  /// The kernel for this many rows, by name.
  std::string detail(int64_t rows) const;

 private:
  bool coded() const { return layout_.bits != 0; }
  void expanded(const std::byte* weight, const Block& block, float* scratch) const;

  Isa isa_;
  QuantLayout layout_;
  PanelGeometry geometry_;
  GemmFloat gemm_;
  GemmCoded gemm_coded_;
};

}  // namespace nibble::jit
