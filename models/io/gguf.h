// SPDX-License-Identifier: Apache-2.0
// Reader for GGUF v2 and v3, split files included (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
// Everything in a file is untrusted: counts are compared with the bytes that are left before anything is allocated.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "models/io/metadata.h"
#include "models/io/stored_tensor.h"
#include "tensor/buffer.h"

namespace nibble::models {

/// One value of the key/value section. Integers keep their sign in int64 or uint64; arrays keep their element type.
struct GgufValue {
  enum class Type : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };
  Type type = Type::u32;
  Type element = Type::u32;   ///< of an array
  uint64_t count = 0;         ///< of an array
  std::variant<uint64_t, int64_t, double, bool, std::string, std::vector<std::string>, std::vector<double>,
               std::vector<int64_t>>
      data;                   ///< arrays: strings, floats as double, integers and bools as int64
};

/// GGUF's dimensions are reversed: outermost first, so a matrix is (n, k).
using GgufTensor = StoredTensor;

std::string_view name(GgufValue::Type type);  ///< "u32", "string"

class Gguf {
 public:
  /// Opens a file, or all shards when the name ends in -00001-of-0000N.gguf. Throws Error naming the file, the offset,
  /// the key or tensor, what was expected and what was found.
  static Gguf open(const std::string& path);

  const std::string& path() const { return path_; }
  uint32_t version() const { return version_; }
  const std::vector<std::pair<std::string, GgufValue>>& values() const { return values_; }
  const GgufValue* find(std::string_view key) const;
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* tensor(std::string_view name) const;
  std::span<const std::byte> bytes(const GgufTensor& tensor) const;
  const MappedFile& file(const GgufTensor& tensor) const { return files_[tensor.file]; }
  uint64_t file_bytes() const;                ///< all shards
  /// Things that are odd but harmless ("unused bytes after the last tensor").
  const std::vector<std::string>& warnings() const { return warnings_; }

  /// Scalars, strings and short arrays; needs general.architecture for the prefix.
  Metadata metadata() const;

 private:
  friend class GgufParser;
  std::string path_;
  uint32_t version_ = 0;
  std::vector<MappedFile> files_;
  std::vector<std::pair<std::string, GgufValue>> values_;
  std::vector<GgufTensor> tensors_;
  std::vector<std::string> warnings_;
  std::vector<uint32_t> value_order_, tensor_order_;  // sorted by name, for find() and tensor()
};

}  // namespace nibble::models
