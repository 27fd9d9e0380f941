// SPDX-License-Identifier: Apache-2.0
// A model folder as Hugging Face transformers saves it: config.json, generation_config.json, and model.safetensors or
// model.safetensors.index.json with its shards. Everything in it is untrusted; nothing in it is run, and no file
// outside of it is opened, but for the blobs that a hub cache's snapshot links to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
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
  /// Maps the weights. Throws Error naming the file and what is wrong with it.
  static HfFolder open(const std::string& path);

  const std::string& path() const { return path_; }
  /// Sorted by name; a quantised module's weight is one tensor (models/io/quantized.h).
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  /// Also finds the text model's tensors of a multimodal checkpoint by the names they have in a text-only one, and a
  /// base model's by the names they have in the whole one.
  const StoredTensor* tensor(std::string_view name) const;
  const MappedFile& file(const StoredTensor& tensor) const { return files_[tensor.file]; }
  uint64_t file_bytes() const;

  /// The keys of config.json, those of its text_config above them; generation_config.json as the object
  /// "generation_config", quantize_config.json as "quantization_config" where config.json has none.
  Metadata metadata() const;
  /// The template of chat_template.jinja or tokenizer_config.json; "" when there is none.
  std::string chat_template() const;
  /// The whole text of a file of the folder; nullopt when there is none of that name. Throws Error when it is longer
  /// than `limit` bytes or leaves the folder.
  std::optional<std::string> text(const std::string& name, uint64_t limit) const;

 private:
  explicit HfFolder(const std::string& path);
  std::string file_path(const std::string& name) const;
  std::optional<nlohmann::json> json(const std::string& name, uint64_t limit) const;
  void open_shards();
  std::string only_weights() const;
  const StoredTensor* exact(std::string_view name) const;

  std::string path_;
  std::vector<MappedFile> files_;
  std::vector<StoredTensor> tensors_;
};

}  // namespace nibble::models
