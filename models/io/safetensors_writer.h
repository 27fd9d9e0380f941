// SPDX-License-Identifier: Apache-2.0
// Writes model.safetensors, or its shards and their index, into a folder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace nibble::models {

struct SafetensorsOutput {
  std::string name;
  std::string type;   ///< as in the header: "BF16", "I32", "F8_E4M3"
  Shape shape;        ///< outermost first
  uint64_t bytes = 0;
  size_t module = 0;  ///< those of one module stand in one file
};

class SafetensorsWriter {
 public:
  /// Creates the files and writes their headers. Tensors of a module must be neighbours. With `split_bytes` a file has
  /// at most so much of tensors, if they fit. Throws Error naming the file.
  SafetensorsWriter(std::string folder, std::vector<SafetensorsOutput> tensors, uint64_t split_bytes);
  ~SafetensorsWriter();
  const std::vector<SafetensorsOutput>& tensors() const { return tensors_; }
  /// All of tensor `index`, in any order.
  void write(size_t index, std::span<const std::byte> data);
  /// Everything to disk, and the index of several files. Returns the bytes written.
  uint64_t finish();

 private:
  struct Shard;
  void place(uint64_t split_bytes);
  std::string head(const Shard& shard) const;

  std::string folder_;
  std::vector<SafetensorsOutput> tensors_;
  std::vector<Shard> shards_;
  std::vector<uint64_t> offsets_;  ///< of each tensor, in its file's data
  std::vector<size_t> shard_of_;
};

}  // namespace nibble::models
