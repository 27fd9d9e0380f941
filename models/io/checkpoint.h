// SPDX-License-Identifier: Apache-2.0
// The one seam for all kinds of model files: metadata, and tensors by name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "models/io/gguf.h"
#include "models/io/hf_folder.h"
#include "models/io/metadata.h"
#include "models/io/stored_tensor.h"
#include "tensor/buffer.h"

namespace nibble::models {

class Checkpoint {
 public:
  /// A GGUF file (or its first shard), a folder as Hugging Face transformers saves it, or that folder's config.json or
  /// any of its .safetensors files. Throws Error naming the file, the place, what was expected and what was found.
  static Checkpoint open(const std::string& path);

  /// nullptr when it is another kind.
  const Gguf* gguf() const { return std::get_if<Gguf>(&source_); }
  const HfFolder* folder() const { return std::get_if<HfFolder>(&source_); }

  const std::string& path() const;
  const Metadata& metadata() const { return metadata_; }
  Metadata& metadata() { return metadata_; }
  const std::vector<StoredTensor>& tensors() const;
  const StoredTensor* tensor(std::string_view name) const;
  const MappedFile& file(const StoredTensor& tensor) const;
  std::span<const std::byte> bytes(const StoredTensor& tensor) const;
  uint64_t file_bytes() const;
  /// "model.gguf: tensor blk.0.attn_q.weight", for errors.
  std::string where(const StoredTensor& tensor) const;

 private:
  using Source = std::variant<Gguf, HfFolder>;
  Checkpoint(Source source, Metadata metadata) : source_(std::move(source)), metadata_(std::move(metadata)) {}
  Source source_;
  Metadata metadata_;
};

}  // namespace nibble::models
