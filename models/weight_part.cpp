// SPDX-License-Identifier: Apache-2.0
#include "models/weight_part.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "models/io/coded_matrix.h"
#include "models/io/split_mxfp4.h"
#include "quant/codes.h"
#include "quant/quantize.h"
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

/// Rows of the weight as the type has them, one after the other.
std::vector<std::byte> gather(const WeightPart& part, const std::byte* data, int64_t row, int64_t rows) {
  const StoredTensor& tensor = *part.tensor;
  const int64_t k = part.slice.columns;
  const uint64_t row_bytes = part.row_bytes();
  std::vector<std::byte> gathered(static_cast<size_t>(rows) * row_bytes);
  std::byte* out = gathered.data();
  for_each_run(part.slice, row, rows, [&](int64_t source, int64_t count) {
    const int64_t first = (part.slice.first + source * k) / tensor.block_elements();
    const uint64_t size = static_cast<uint64_t>(count) * row_bytes;
    if (part.scales == nullptr) {
      std::memcpy(out, data + static_cast<uint64_t>(first) * tensor.block_bytes(), size);
    } else {
      // a block here is the scale and as many bytes
      const auto stride = static_cast<int64_t>(tensor.block_bytes()) - 1;
      join_mxfp4_blocks(data + first * stride, part.scales + first, count * k / tensor.block_elements(), out);
    }
    out += size;
  });
  return gathered;
}

/// Columns of a transposed slice's matrix, as rows (count, k). Quantised lines are read whole.
void read_columns(const WeightPart& part, const std::byte* data, int64_t column, int64_t count, float* out) {
  const StoredTensor& tensor = *part.tensor;
  const int64_t k = part.slice.columns, n = part.slice.source_rows;
  const bool plain = tensor.block_elements() == 1 && tensor.coded == nullptr;
  const int64_t begin = plain ? column : 0, skipped = column - begin, read = plain ? count : n;
  std::vector<float> line(static_cast<size_t>(read));
  for (int64_t j = 0; j < k; ++j) {
    const int64_t at = part.slice.first + j * n + begin;
    if (tensor.coded != nullptr) models::read_floats(*tensor.coded, at / n, 1, line.data());
    else to_floats(tensor, data + stored_bytes(tensor, at), read, line.data());
    for (int64_t i = 0; i < count; ++i) out[i * k + j] = line[static_cast<size_t>(skipped + i)];
  }
}

}  // namespace

void read_rows(const WeightPart& part, const std::byte* data, int64_t row, int64_t rows, float* out) {
  const StoredTensor& tensor = *part.tensor;
  const int64_t k = part.slice.columns;
  if (part.scales != nullptr) return to_floats(tensor, gather(part, data, row, rows).data(), rows * k, out);
  if (tensor.coded != nullptr && !part.slice.transposed) {
    for_each_run(part.slice, row, rows, [&](int64_t source, int64_t count) {
      models::read_floats(*tensor.coded, source, count, out);
      out += count * k;
    });
    return;
  }
  if (!part.slice.transposed) {
    for_each_run(part.slice, row, rows, [&](int64_t source, int64_t count) {
      to_floats(tensor, data + stored_bytes(tensor, part.slice.first + source * k), count * k, out);
      out += count * k;
    });
    return;
  }
  for_each_run(part.slice, row, rows, [&](int64_t source, int64_t count) {
    read_columns(part, data, source, count, out);
    out += count * k;
  });
}

namespace {

void pack_coded(const WeightPart& part, const QuantFormat& format, int64_t row, int64_t rows, std::byte* packed) {
  CodedRows all;
  const auto append = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
  for_each_run(part.slice, row, rows, [&](int64_t source, int64_t count) {
    CodedRows some = read_codes(*part.tensor->coded, source, count);
    if (all.codes.empty()) return std::swap(all, some);
    append(all.codes, some.codes);
    append(all.scales, some.scales);
    append(all.offsets, some.offsets);
  });
  const quant::NumberedRows in{all.codes.data(), all.scales.data(), all.offsets.data()};
  quant::pack_codes(format, in, part.slice.rows(), part.slice.columns, row, rows, packed);
}

bool keeps_bits(const WeightPart& part, const QuantFormat& format) {
  return !part.slice.unit_rows && part.tensor->type != nullptr && part.tensor->type->format == &format;
}

/// Not where they become floats, nor those of a book of floats that are quantised once more.
bool keeps_codes(const StoredTensor& tensor, const QuantFormat& format) {
  if (tensor.coded == nullptr || tensor.coded->format->layout.bits == 0 || format.layout.bits == 0) return false;
  return !float_weights(tensor.coded->format->layout) || tensor.coded->format == &format;
}

void pack_floats(const WeightPart& part, std::vector<float>& floats, const QuantFormat& format, int64_t row,
                 int64_t rows, std::byte* packed) {
  if (part.slice.unit_rows) divide_by_length(floats, part.slice.columns);
  quant::quantize_rows(format, floats.data(), part.slice.rows(), part.slice.columns, row, rows, packed);
}

}  // namespace

uint64_t WeightPart::row_bytes() const {
  if (tensor->coded != nullptr) return tensor->bytes / static_cast<uint64_t>(tensor->coded->n);
  return stored_bytes(*tensor, slice.vector() ? 1 : slice.columns);
}

uint64_t WeightPart::bytes() const {
  if (tensor->coded != nullptr) return row_bytes() * static_cast<uint64_t>(slice.rows());
  return stored_bytes(*tensor, slice.vector() ? slice.rows() : slice.rows() * slice.columns);
}

uint64_t WeightPart::offset(int64_t row) const {
  return stored_bytes(*tensor, slice.first + (slice.runs.front().row + row) * std::max<int64_t>(1, slice.columns));
}

const QuantFormat& WeightPart::exact_format() const {
  if (slice.transposed && (tensor->coded != nullptr || tensor->block_elements() > 1)) return quant::find_format("f32");
  if (tensor->coded != nullptr) return *tensor->coded->format;
  return tensor->type != nullptr ? *tensor->type->format : quant::find_format(tensor->element->exact);
}

void check_part(const WeightPart& part, const std::string& where) {
  const StoredTensor& tensor = *part.tensor;
  const bool plain = tensor.block_elements() == 1 && tensor.coded == nullptr;
  const bool whole_lines = part.slice.whole_lines && part.scales == nullptr;
  NIBBLE_CHECK(tensor.coded == nullptr || !part.slice.vector(), where, ": expected a vector of floats, found type ",
               tensor.type_name());
  NIBBLE_CHECK(plain || !((part.slice.transposed && !whole_lines) || part.slice.unit_rows), where,
               ": expected floats, found type ", tensor.type_name());
  NIBBLE_CHECK(plain || tensor.shape[-1] % tensor.block_elements() == 0, where, ": expected rows of a multiple of ",
               tensor.block_elements(), " elements, found ", to_string(tensor.shape));
}

void pack_part(const WeightPart& part, const std::byte* data, const QuantFormat& format, int64_t row, int64_t rows,
               std::byte* packed) {
  if (part.contiguous()) return pack_contiguous(part, data + part.offset(row), format, row, rows, packed);
  const StoredTensor& tensor = *part.tensor;
  const int64_t k = part.slice.columns;
  if (!part.slice.transposed && keeps_codes(tensor, format)) return pack_coded(part, format, row, rows, packed);
  if (!part.slice.transposed && tensor.type != nullptr)
    return pack_contiguous(part, gather(part, data, row, rows).data(), format, row, rows, packed);
  std::vector<float> floats(static_cast<size_t>(rows * k));
  read_rows(part, data, row, rows, floats.data());
  pack_floats(part, floats, format, row, rows, packed);
}

void pack_contiguous(const WeightPart& part, const std::byte* rows_data, const QuantFormat& format, int64_t row,
                     int64_t rows, std::byte* packed) {
  const int64_t n = part.slice.rows(), k = part.slice.columns;
  if (keeps_bits(part, format)) return quant::pack_rows(*part.tensor->type, rows_data, n, k, row, rows, packed);
  if (part.tensor->type != nullptr && !part.slice.unit_rows)
    return quant::quantize_blocks(format, *part.tensor->type, rows_data, n, k, row, rows, packed);
  std::vector<float> floats(static_cast<size_t>(rows * k));
  to_floats(*part.tensor, rows_data, rows * k, floats.data());
  pack_floats(part, floats, format, row, rows, packed);
}

void read_vector(const WeightPart& part, const std::byte* data, float* out) {
  const StoredTensor& tensor = *part.tensor;
  // quantised vectors may be cut inside a block
  std::vector<float> all(static_cast<size_t>(part.slice.source_rows));
  const bool plain = tensor.block_elements() == 1;
  if (!plain) all.resize(static_cast<size_t>(tensor.shape.elements()));
  to_floats(tensor, plain ? data + stored_bytes(tensor, part.slice.first) : data, static_cast<int64_t>(all.size()),
            all.data());
  const float* source = all.data() + (plain ? 0 : part.slice.first);
  for (const RowRun& run : part.slice.runs)
    for (int64_t i = 0; i < run.count; ++i) *out++ = source[run.row + i] + part.slice.add;
}

}  // namespace nibble::models
