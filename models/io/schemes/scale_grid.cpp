// SPDX-License-Identifier: Apache-2.0
#include "models/io/schemes/scale_grid.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "tensor/check.h"
#include "tensor/panel.h"

namespace nibble::models {

ScaleGrid::ScaleGrid(ModulePart scales, int64_t n, int64_t k, bool blocks) : part(std::move(scales)) {
  const Shape& shape = part.tensor->shape;
  if (shape.rank() > 0) rows = shape[0];
  if (shape.rank() > 1) columns = shape[1];
  const bool right = blocks ? rows > 0 && n % rows == 0 : rows == n || rows * columns == 1;
  NIBBLE_CHECK(shape.rank() <= 2 && right && columns > 0 && k % columns == 0, part.where,
               ": expected scales that divide (", n, ", ", k, ") evenly, found shape ", to_string(shape));
  rows_per_scale = n / rows;
  columns_per_scale = k / columns;
}

ScaleGrid::ScaleGrid(ModulePart scales, int64_t n, int64_t k, int64_t block_rows, int64_t block_columns)
    : part(std::move(scales)) {
  rows = (n + block_rows - 1) / block_rows;
  columns = (k + block_columns - 1) / block_columns;
  rows_per_scale = block_rows;
  columns_per_scale = block_columns;
  part.expect({rows, columns});
}

void ScaleGrid::line(int64_t row, float* out) const {
  part.floats(row / rows_per_scale * columns, columns, out);
  if (part.tensor->type_name() != "u8") return;
  for (int64_t i = 0; i < columns; ++i) out[i] = std::ldexp(1.0f, static_cast<int>(out[i]) - 127);
}

bool scales_fit(uint8_t codebook, DType product, std::span<const float> scales) {
  float least = 0, most = 0;
  for (const float scale : scales) {
    const float size = std::fabs(scale);
    if (!std::isfinite(size)) return false;
    most = std::max(most, size);
    if (size > 0 && (least == 0 || size < least)) least = size;
  }
  return float_range_fits(*float_book(codebook), product, least, most);
}

namespace {

bool grid_fits(const ScaleGrid& grid, DType product) {
  std::vector<float> scales(static_cast<size_t>(grid.columns));
  for (int64_t i = 0; i < grid.rows; ++i) {
    grid.line(i * grid.rows_per_scale, scales.data());
    if (!scales_fit(books::e4m3, product, scales)) return false;
  }
  return true;
}

}  // namespace

CodedMatrix scaled_floats(const Module& m, const ModulePart& codes, const ScaleGrid& grid, DType type) {
  CodedMatrix matrix;
  matrix.type = std::string(codes.tensor->type_name());
  matrix.n = codes.dim(0);
  matrix.k = codes.dim(1);
  matrix.scale = type == DType::f32 ? model_type(m.config) : type;
  matrix.floats = [codes, grid, k = matrix.k](int64_t row, int64_t rows, float* out) {
    std::vector<float> scales(static_cast<size_t>(grid.columns));
    for (int64_t i = row; i < row + rows; ++i, out += k) {
      codes.floats(i * k, k, out);
      grid.line(i, scales.data());
      for (int64_t j = 0; j < k; ++j) out[j] *= scales[static_cast<size_t>(j / grid.columns_per_scale)];
    }
  };
  if (!grid_fits(grid, matrix.scale)) return matrix;
  matrix.bits = 8;
  matrix.codebook = books::e4m3;
  matrix.product = matrix.scale;
  matrix.group = grid.columns_per_scale;
  matrix.codes = [codes, k = matrix.k](int64_t row, int64_t rows, uint8_t* out) {
    std::memcpy(out, codes.data + row * k, static_cast<size_t>(rows * k));
    for (int64_t i = 0; i < rows * k; ++i)
      NIBBLE_CHECK((out[i] & 0x7f) != 0x7f, codes.where, ": weight (", row + i / k, ", ", i % k, ") is nan");
  };
  matrix.scales = [grid](int64_t row, int64_t rows, float* out, float* offsets) {
    std::fill(offsets, offsets + rows * grid.columns, 0.0f);
    for (int64_t i = row; i < row + rows; ++i, out += grid.columns) grid.line(i, out);
  };
  return matrix;
}

DType model_type(const Metadata& config) {
  const std::string name = config.get_string("dtype|torch_dtype", "bfloat16");
  return name == "float16" ? DType::f16 : name == "float32" ? DType::f32 : DType::bf16;
}

std::vector<int32_t> group_indices(const ModulePart& part, int64_t k, int64_t groups) {
  std::vector<int32_t> result(static_cast<size_t>(k));
  int64_t none = 0;
  for (int64_t j = 0; j < k; ++j) {
    const int64_t g = part.tensor->block_bytes() == 4 ? load_at<int32_t>(part.data, j) : load_at<int64_t>(part.data, j);
    none += g == -1;
    NIBBLE_CHECK((g >= 0 && g < groups && none == 0) || none == j + 1, part.where, ": column ", j,
                 ": expected a group from 0 to ", groups - 1, ", found ", g);
    result[static_cast<size_t>(j)] = static_cast<int32_t>(g);
  }
  if (none > 0) result.clear();
  return result;
}

void unpack_stream(const std::byte* words, int bits, int64_t count, uint8_t* out) {
  int64_t j = 0;
  for (; bits == 4 && j + 8 <= count; j += 8) {
    const uint64_t eight = spread_nibbles(load_at<uint32_t>(words, j / 8));
    std::memcpy(out + j, &eight, sizeof eight);
  }
  for (; j < count; ++j) out[j] = static_cast<uint8_t>(code_at(words, bits, j));
}

}  // namespace nibble::models
