// SPDX-License-Identifier: Apache-2.0
// A matrix that a checkpoint keeps in several tensors (codes, scales, zero points): rows of it as numbers, for quant's
// packer. The schemes (models/io/schemes/) say where the numbers are; here they meet the packed layout.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tensor/packed.h"

namespace nibble::models {

struct CodedMatrix {
  std::string type;             ///< "gptq4", for people
  std::string where;            ///< "model.safetensors: tensor a.qweight", for errors
  int64_t n = 0, k = 0;
  int bits = 0;                 ///< of a code; 0: `floats` gives the weights, to be rounded to `scale`
  ZeroPoint zero_point = ZeroPoint::symmetric;
  DType scale = DType::f32;     ///< in which scales and minima are exact; with bits 0 the weights
  int64_t group = 0;            ///< columns that share a scale, in their order or by `groups`; the last may be fewer
  std::vector<int32_t> groups;  ///< of each column; empty: column / group
  uint8_t codebook =
      0;  ///< a book of floats (tensor/panel.h) that the codes are of; `floats` then gives the weights too
  DType product = DType::f32;   ///< with a codebook: what the weights are rounded to

  /// (rows, k), in the checkpoint's order of columns. Threads may call these at once.
  std::function<void(int64_t row, int64_t rows, uint8_t* codes)> codes;
  /// (rows, scales_per_row) each; `offsets` are minima, or zero points: 2^(bits-1) where symmetric.
  std::function<void(int64_t row, int64_t rows, float* scales, float* offsets)> scales;
  std::function<void(int64_t row, int64_t rows, float* out)> floats;

  /// Set by settle(). Codes where a packed layout has their groups, else floats in which every weight is exact.
  const QuantFormat* format = nullptr;
  /// Packed column j is the checkpoint's column order[j]: columns of one group side by side. Empty: as they are.
  std::vector<int32_t> order;

  int64_t scales_per_row() const { return (k + group - 1) / group; }
};

/// Chooses the format and the order. `groups` that count up as column / group are dropped.
void settle(CodedMatrix& matrix);

/// Rows as quant::NumberedRows has them, with stored groups and columns as in `format`. Throws Error for a scale or an
/// offset that is not finite.
struct CodedRows {
  std::vector<uint8_t> codes;
  std::vector<float> scales, offsets;
};
CodedRows read_codes(const CodedMatrix& matrix, int64_t row, int64_t rows);
/// The weights, (rows, k), in the checkpoint's order of columns. Throws Error for one that is not finite.
void read_floats(const CodedMatrix& matrix, int64_t row, int64_t rows, float* out);

}  // namespace nibble::models
