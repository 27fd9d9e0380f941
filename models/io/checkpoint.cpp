// SPDX-License-Identifier: Apache-2.0
#include "models/io/checkpoint.h"

#include <filesystem>

#include "tensor/check.h"

namespace nibble::models {

Checkpoint Checkpoint::open(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const fs::path at(path);
  if (fs::is_directory(at, ignored)) {
    HfFolder folder = HfFolder::open(path);
    Metadata metadata = folder.metadata();
    return Checkpoint(std::move(folder), std::move(metadata));
  }
  if (at.filename() == "config.json" || at.extension() == ".safetensors")
    return open(at.has_parent_path() ? at.parent_path().string() : ".");
  Gguf gguf = Gguf::open(path);
  Metadata metadata = gguf.metadata();
  return Checkpoint(std::move(gguf), std::move(metadata));
}

const std::string& Checkpoint::path() const {
  return std::visit([](const auto& source) -> const std::string& { return source.path(); }, source_);
}

const std::vector<StoredTensor>& Checkpoint::tensors() const {
  return std::visit([](const auto& source) -> const std::vector<StoredTensor>& { return source.tensors(); }, source_);
}

const StoredTensor* Checkpoint::tensor(std::string_view name) const {
  return std::visit([&](const auto& source) { return source.tensor(name); }, source_);
}

const MappedFile& Checkpoint::file(const StoredTensor& tensor) const {
  return std::visit([&](const auto& source) -> const MappedFile& { return source.file(tensor); }, source_);
}

std::span<const std::byte> Checkpoint::bytes(const StoredTensor& tensor) const {
  return file(tensor).bytes().subspan(tensor.offset, tensor.bytes);
}

uint64_t Checkpoint::file_bytes() const {
  return std::visit([](const auto& source) { return source.file_bytes(); }, source_);
}

std::string Checkpoint::where(const StoredTensor& tensor) const {
  return message(file(tensor).path(), ": tensor ", tensor.name);
}

}  // namespace nibble::models
