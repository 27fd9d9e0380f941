// SPDX-License-Identifier: Apache-2.0
#include "models/weight_part.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "quant/format.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

/// Bytes of `elements` elements, a whole number of blocks.
uint64_t stored_bytes(const StoredTensor& tensor, int64_t elements) {
  return static_cast<uint64_t>(elements / tensor.block_elements()) * tensor.block_bytes();
}

void divide_by_length(std::vector<float>& rows, int64_t k) {
  for (auto row = rows.begin(); row != rows.end(); row += k) {
    const double length = std::sqrt(std::inner_product(row, row + k, row, 0.0));
    // as torch.nn.functional.normalize does
    for (auto x = row; x != row + k; ++x) *x = static_cast<float>(*x / std::max(length, 1e-12));
  }
}

/// Rows of the weight as floats, (rows, k).
void read_rows(const WeightPart& part, const std::byte* data, int64_t row, int64_t rows, float* out) {
  const StoredTensor& tensor = *part.tensor;
  const int64_t k = part.slice.columns;
  if (!part.slice.transposed) {
    for_each_run(part.slice, row, rows, [&](int64_t source, int64_t count) {
      to_floats(tensor, data + stored_bytes(tensor, part.slice.first + source * k), count * k, out);
      out += count * k;
    });
    return;
  }
  std::vector<float> line(static_cast<size_t>(rows));
  for_each_run(part.slice, row, rows, [&](int64_t source, int64_t count) {
    for (int64_t j = 0; j < k; ++j) {
      const int64_t at = part.slice.first + j * part.slice.source_rows + source;
      to_floats(tensor, data + stored_bytes(tensor, at), count, line.data());
      for (int64_t i = 0; i < count; ++i) out[i * k + j] = line[static_cast<size_t>(i)];
    }
    out += count * k;
  });
}

}  // namespace

uint64_t WeightPart::row_bytes() const { return stored_bytes(*tensor, slice.vector() ? 1 : slice.columns); }

uint64_t WeightPart::bytes() const {
  return stored_bytes(*tensor, slice.vector() ? slice.rows() : slice.rows() * slice.columns);
}

uint64_t WeightPart::offset(int64_t row) const {
  return stored_bytes(*tensor, slice.first + (slice.runs.front().row + row) * std::max<int64_t>(1, slice.columns));
}

const QuantFormat& WeightPart::exact_format() const {
  return tensor->type != nullptr ? *tensor->type->format : quant::find_format(tensor->element->exact);
}

void check_part(const WeightPart& part, const std::string& where) {
  const StoredTensor& tensor = *part.tensor;
  const bool plain = tensor.block_elements() == 1;
  NIBBLE_CHECK(plain || !(part.slice.transposed || part.slice.unit_rows), where, ": expected floats, found type ", tensor.type_name());
  NIBBLE_CHECK(plain || tensor.shape[-1] % tensor.block_elements() == 0, where, ": expected rows of a multiple of ",
               tensor.block_elements(), " elements, found ", to_string(tensor.shape));
}

void pack_part(const WeightPart& part, const std::byte* data, const QuantFormat& format, int64_t row, int64_t rows,
               std::byte* packed) {
  const StoredTensor& tensor = *part.tensor;
  const int64_t n = part.slice.rows(), k = part.slice.columns;
  if (part.slice.transposed || part.slice.unit_rows || tensor.type == nullptr || tensor.type->format != &format) {
    std::vector<float> floats(static_cast<size_t>(rows * k));
    read_rows(part, data, row, rows, floats.data());
    if (part.slice.unit_rows) divide_by_length(floats, k);
    return quant::quantize_rows(format, floats.data(), n, k, row, rows, packed);
  }
  if (part.contiguous()) return quant::pack_rows(*tensor.type, data + part.offset(row), n, k, row, rows, packed);
  const uint64_t row_bytes = part.row_bytes();
  std::vector<std::byte> gathered(static_cast<size_t>(rows) * row_bytes);
  std::byte* out = gathered.data();
  for_each_run(part.slice, row, rows, [&](int64_t source, int64_t count) {
    const uint64_t size = static_cast<uint64_t>(count) * row_bytes;
    std::memcpy(out, data + stored_bytes(tensor, part.slice.first + source * k), size);
    out += size;
  });
  quant::pack_rows(*tensor.type, gathered.data(), n, k, row, rows, packed);
}

void read_vector(const WeightPart& part, const std::byte* data, float* out) {
  const StoredTensor& tensor = *part.tensor;
  // quantised vectors may be cut inside a block
  std::vector<float> all(static_cast<size_t>(part.slice.source_rows));
  const bool plain = tensor.block_elements() == 1;
  if (!plain) all.resize(static_cast<size_t>(tensor.shape.elements()));
  to_floats(tensor, plain ? data + stored_bytes(tensor, part.slice.first) : data, static_cast<int64_t>(all.size()), all.data());
  const float* source = all.data() + (plain ? 0 : part.slice.first);
  for (const RowRun& run : part.slice.runs)
    for (int64_t i = 0; i < run.count; ++i) *out++ = source[run.row + i] + part.slice.add;
}

}  // namespace nibble::models
