// SPDX-License-Identifier: Apache-2.0
// A model as the tensors and keys that a GGUF file of it has, whatever kind of checkpoint it comes from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/arch.h"
#include "models/io/checkpoint.h"

namespace nibble::models {

struct SourceTensor {
  enum class Role : unsigned char { other, matrix, embedding, output };
  std::string name;    ///< in GGUF
  Role role = Role::other;
  std::string weight;  ///< of a matrix: its name in the graph, "blk.0.q.weight"
  Shape shape;         ///< outermost first
  const quant::BlockType* exact = nullptr;  ///< the type that `copy` writes
  uint64_t bytes = 0;                       ///< in the checkpoint
  /// Rows [row, row + rows) of shape[-1] elements, as floats. Thread safe.
  std::function<void(int64_t row, int64_t rows, float* out)> read;
  /// The whole tensor, every value as it is.
  std::function<void(std::span<std::byte> out)> copy;
  /// It will not be read again.
  std::function<void()> release;
};

struct ModelSource {
  std::vector<std::pair<std::string, GgufValue>> values;
  std::vector<SourceTensor> tensors;
};

/// Whether a weight of the graph stays floats when the others are quantised: routers of experts and tables of positions
/// are small, and errors in them cost most.
bool stays_exact(std::string_view weight);

/// Keys and tensors of a GGUF file, in its order; without the keys that say how it is split. The checkpoint must live
/// on.
ModelSource gguf_source(const Checkpoint& file);

/// A Hugging Face folder as a GGUF file: names, keys and order of rows are those that llama.cpp reads. Throws Error for
/// architectures, tokenizers and tensors that it cannot be done for. The checkpoint must live on.
ModelSource folder_source(const Checkpoint& folder);

// For making keys.
GgufValue gguf_value(uint32_t number);
GgufValue gguf_value(float number);
GgufValue gguf_value(bool flag);
GgufValue gguf_value(std::string text);
GgufValue gguf_value(std::vector<std::string> texts);
/// An array of f32, or of i32.
GgufValue gguf_floats(std::vector<double> numbers);
GgufValue gguf_integers(std::vector<int64_t> numbers);

}  // namespace nibble::models
