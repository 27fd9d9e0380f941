// SPDX-License-Identifier: Apache-2.0
// From a slice of a file's tensor to a packed matrix or a vector of floats. Internal to models/.
#pragma once

#include <cstddef>
#include <cstdint>

#include "models/io/stored_tensor.h"
#include "models/pieces.h"
#include "tensor/packed.h"

namespace nibble::models {

/// One matrix or vector and where it comes from.
struct WeightPart {
  const StoredTensor* tensor = nullptr;
  Slice slice;
  const std::byte* scales = nullptr;  ///< of StoredTensor::scales

  uint64_t row_bytes() const;   ///< of a row of the weight, in the file
  uint64_t bytes() const;
  /// The rows stand one after the other in the file, so that a range of them is a range of bytes.
  bool contiguous() const {
    return tensor->coded == nullptr && scales == nullptr && !slice.transposed && slice.runs.size() == 1;
  }
  uint64_t offset(int64_t row) const;  ///< in the tensor; of a contiguous part
  /// The format that holds the values exactly.
  const QuantFormat& exact_format() const;
};

/// Throws Error when the pieces need unquantised elements and the tensor's are not.
void check_part(const WeightPart& part, const std::string& where);

/// Rows [row, row + rows) of the weight as floats, (rows, k); unit rows are not divided by their length.
void read_rows(const WeightPart& part, const std::byte* data, int64_t row, int64_t rows, float* out);
/// Rows [row, row + rows) of the weight, (n, k) in `format`, from the tensor's bytes. Rows as in quant::pack_rows.
/// Moves the bits as they are when they are in that format already, else quantises.
void pack_part(const WeightPart& part, const std::byte* data, const QuantFormat& format, int64_t row, int64_t rows,
               std::byte* packed);
/// The same from the bytes of these rows alone, one after the other as the file has them; not of transposed or coded
/// ones.
void pack_contiguous(const WeightPart& part, const std::byte* rows_data, const QuantFormat& format, int64_t row,
                     int64_t rows, std::byte* packed);
/// All elements of a vector.
void read_vector(const WeightPart& part, const std::byte* data, float* out);

}  // namespace nibble::models
