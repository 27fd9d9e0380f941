// SPDX-License-Identifier: Apache-2.0
// Scales that stand in a grid over a matrix: one for all, one a row, one for each group of columns or for each block.
#pragma once

#include <span>
#include <vector>

#include "models/io/schemes/module.h"

namespace nibble::models {

struct ScaleGrid {
  ModulePart part;
  int64_t rows = 1, columns = 1;  ///< of scales
  int64_t rows_per_scale = 1, columns_per_scale = 1;

  /// One scale, (n) or (n, columns) of them, or with `blocks` (rows, columns) that divide the matrix (n, k) evenly.
  /// Throws Error for other shapes.
  ScaleGrid(ModulePart scales, int64_t n, int64_t k, bool blocks);
  /// Of blocks (block_rows, block_columns), the last ones of which may be cut.
  ScaleGrid(ModulePart scales, int64_t n, int64_t k, int64_t block_rows, int64_t block_columns);
  DType type() const { return float_type(part); }
  /// The scales of row `row`, `columns` of them. Bytes (u8) are exponents of two, 127 the 1.
  void line(int64_t row, float* out) const;
};

/// Whether panels with this codebook can hold all of the scales, and their products.
bool scales_fit(uint8_t codebook, DType product, std::span<const float> scales);

/// The matrix of one-byte floats `codes` times its scales, rounded to f32 and then to `type`; f32: to the type the
/// model computes in.
CodedMatrix scaled_floats(const Module& m, const ModulePart& codes, const ScaleGrid& grid, DType type);

/// The type that config.json says the model computes in; bf16 when it doesn't.
DType model_type(const Metadata& config);

/// The group of each column. Empty when all are -1. Throws Error naming the column for a group that is not in [0,
/// groups).
std::vector<int32_t> group_indices(const ModulePart& part, int64_t k, int64_t groups);

/// `count` codes of a row of words (code_at).
void unpack_stream(const std::byte* words, int bits, int64_t count, uint8_t* out);

}  // namespace nibble::models
