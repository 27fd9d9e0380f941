// SPDX-License-Identifier: Apache-2.0
// A model folder as Hugging Face transformers saves it: config.json, generation_config.json, and model.safetensors or
// model.safetensors.index.json with its shards. Everything in it is untrusted; nothing in it is run, and no file outside
// of it is opened.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/io/metadata.h"
#include "models/io/stored_tensor.h"
#include "tensor/buffer.h"

namespace nibble::models {

class HfFolder {
 public:
  /// Throws Error naming the file and what is wrong with it.
  static HfFolder open(const std::string& path);

  const std::string& path() const { return path_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  /// Also finds the text model's tensors in a multimodal checkpoint by the names they have in a text-only one.
  const StoredTensor* tensor(std::string_view name) const;
  const MappedFile& file(const StoredTensor& tensor) const { return files_[tensor.file]; }
  std::span<const std::byte> bytes(const StoredTensor& tensor) const {
    return files_[tensor.file].bytes().subspan(tensor.offset, tensor.bytes);
  }
  uint64_t file_bytes() const;

  /// The keys of config.json, those of its text_config above them; generation_config.json as the object
  /// "generation_config".
  Metadata metadata() const;

 private:
  std::string path_;
  std::vector<MappedFile> files_;
  std::vector<StoredTensor> tensors_;     // sorted by name
};

}  // namespace nibble::models
