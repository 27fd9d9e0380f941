// SPDX-License-Identifier: Apache-2.0
// A tensor as a checkpoint file has it, whatever the kind of file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "quant/format.h"
#include "tensor/tensor.h"

namespace nibble::models {

/// Elements that are no block type of quant/: they can only be turned into floats.
struct ElementType {
  std::string_view name;  ///< "f64"
  size_t bytes;           ///< of one element
  /// Rounded to nearest where a float can't hold the value.
  void (*to_floats)(const std::byte* in, int64_t count, float* out);
  std::string_view exact;  ///< the narrowest float format that holds every value; f32 where none does
};

/// f64, f8_e4m3, f8_e5m2, bool, i8, u8, i16, u16, i32, u32, i64, u64. nullptr when there is none of that name.
const ElementType* find_element_type(std::string_view name);

struct CodedMatrix;

struct StoredTensor {
  std::string name;
  Shape shape;                              ///< outermost first, so a matrix is (n, k)
  const quant::BlockType* type = nullptr;   ///< f32, f16, bf16 and quantised blocks; else null
  const ElementType* element = nullptr;     ///< everything else; null when `type` is not
  std::shared_ptr<const CodedMatrix> coded;  ///< a matrix of several tensors; `type` and `element` are null then
  size_t file = 0;                          ///< index of the shard
  uint64_t offset = 0, bytes = 0;           ///< in the shard
  std::shared_ptr<const StoredTensor> scales =
      nullptr;  ///< mxfp4 whose scales are in another tensor (models/io/split_mxfp4.h)

  std::string_view type_name() const;
  /// Weights per block: 1 unless quantised.
  int64_t block_elements() const { return type != nullptr ? type->block_elements : 1; }
  /// Not of a coded matrix.
  uint64_t block_bytes() const { return type != nullptr ? type->block_bytes : element->bytes; }
};

/// `count` elements as floats; quantised ones in whole blocks. Not of a coded matrix.
void to_floats(const StoredTensor& tensor, const std::byte* in, int64_t count, float* out);

}  // namespace nibble::models
