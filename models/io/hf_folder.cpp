// SPDX-License-Identifier: Apache-2.0
#include "models/io/hf_folder.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tensor/check.h"

namespace nibble::models {

HfFolder HfFolder::open(const std::string& path) { fail(path, ": folders cannot be read yet"); }

const StoredTensor* HfFolder::tensor(std::string_view name) const {
  const auto it = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                   [](const StoredTensor& tensor, std::string_view n) { return tensor.name < n; });
  return it != tensors_.end() && it->name == name ? &*it : nullptr;
}

uint64_t HfFolder::file_bytes() const {
  uint64_t sum = 0;
  for (const MappedFile& file : files_) sum += file.bytes().size();
  return sum;
}

Metadata HfFolder::metadata() const {
  return Metadata(Metadata::Source::hugging_face, path_ + "/config.json", "", nlohmann::json::object());
}

}  // namespace nibble::models
