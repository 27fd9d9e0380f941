// SPDX-License-Identifier: Apache-2.0
// A model whose weights are floats, as a Hugging Face folder would have it: such a folder, or a GGUF file. What folders
// are written from. Internal to models/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/io/checkpoint.h"
#include "models/weight_part.h"
#include "tensor/parallel.h"

namespace nibble::models {

/// One tensor of the folder, and where its numbers are.
struct FloatTensor {
  std::string name;
  Shape shape;
  std::optional<DType> type;  ///< f32, f16 or bf16: what it is written as; nullopt: the bytes that the file has
  WeightPart part;            ///< of the file; of what is no float its tensor alone
  bool transposed = false;    ///< its lines are columns of the part

  bool floats() const { return type.has_value() || part.tensor->type != nullptr; }
  bool matrix() const { return floats() && shape.rank() >= 2; }
  std::string_view type_name() const;  ///< as written: "bf16"
  uint64_t bytes() const;              ///< as written
  uint64_t stored_bytes() const;       ///< in the file
  /// Rows [row, row + rows) of a matrix that is not transposed, before they are rounded to `type`.
  void read_rows(const Checkpoint& file, int64_t row, int64_t rows, float* out) const;
  /// Reads, and rounds to `type`, which it must have; memory for the tensor as it is written. Throws Error for a number
  /// that f16 does not reach.
  std::vector<std::byte> read(const Checkpoint& file, ThreadPool& pool) const;
};

struct TextFile {
  std::string name;
  std::function<std::string()> text;  ///< throws Error
};

struct FloatModel {
  const Checkpoint* file;  ///< must live on
  std::vector<FloatTensor> tensors;
  std::string config;           ///< config.json
  Metadata metadata;            ///< the same, to be read
  std::vector<TextFile> files;  ///< the others: the tokenizer's, of generation
};

/// Tensors are in the order of their names. `matrices`: f32, f16 or bf16; nullopt: as they are, those that a GGUF file
/// has quantised as f32. Throws Error for a folder that is quantised, and as unpack_gguf does.
FloatModel open_floats(const Checkpoint& file, std::optional<DType> matrices = {});
/// One of open_floats', also by the other names that HfFolder::tensor knows; nullptr when there is none.
const FloatTensor* find_tensor(const FloatModel& model, std::string_view name);
/// "bfloat16"; f32, f16 or bf16.
std::string_view torch_name(DType type);
/// f32, f16 or bf16 of that name; nullopt for any other.
std::optional<DType> float_type(std::string_view name);

}  // namespace nibble::models
