// SPDX-License-Identifier: Apache-2.0
#include "models/io/safetensors_writer.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include <unistd.h>

#include "tensor/check.h"

namespace nibble::models {

namespace {

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

/// Bytes of an element, which must divide its place in the file for readers that map it.
uint64_t alignment(const SafetensorsOutput& tensor) {
  const auto elements = static_cast<uint64_t>(tensor.shape.elements());
  return elements == 0 ? 1 : tensor.bytes / elements;
}

nlohmann::json sizes(const Shape& shape) {
  nlohmann::json out = nlohmann::json::array();
  for (int i = 0; i < shape.rank(); ++i) out.push_back(shape[i]);
  return out;
}

}  // namespace

struct SafetensorsWriter::Shard {
  std::string name;
  std::vector<size_t> tensors;  ///< in the order of the file
  uint64_t begin = 0, bytes = 0;  ///< of the data
  std::unique_ptr<std::FILE, CloseFile> file;

  void check(bool ok, const std::string& folder) const {
    NIBBLE_CHECK(ok, folder, "/", name, ": cannot write it: ", std::strerror(errno));
  }
};

SafetensorsWriter::SafetensorsWriter(std::string folder, std::vector<SafetensorsOutput> tensors, uint64_t split_bytes)
    : folder_(std::move(folder)), tensors_(std::move(tensors)), offsets_(tensors_.size()), shard_of_(tensors_.size()) {
  place(split_bytes);
  for (size_t i = 0; i < shards_.size(); ++i) {
    Shard& shard = shards_[i];
    char name[64] = "model.safetensors";
    if (shards_.size() > 1) std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, shards_.size());
    shard.name = name;
    const std::string text = head(shard);
    const auto size = static_cast<uint64_t>(text.size());
    shard.begin = sizeof size + size;
    shard.file.reset(std::fopen((folder_ + "/" + shard.name).c_str(), "wbx"));
    shard.check(shard.file != nullptr, folder_);
    shard.check(std::fwrite(&size, sizeof size, 1, shard.file.get()) == 1 &&
                    std::fwrite(text.data(), 1, text.size(), shard.file.get()) == text.size(),
                folder_);
  }
}

SafetensorsWriter::~SafetensorsWriter() = default;

void SafetensorsWriter::place(uint64_t split_bytes) {
  shards_.emplace_back();
  for (size_t i = 0; i < tensors_.size();) {
    size_t end = i;
    uint64_t bytes = 0;
    for (; end < tensors_.size() && tensors_[end].module == tensors_[i].module; ++end) bytes += tensors_[end].bytes;
    if (split_bytes != 0 && shards_.back().bytes > 0 && shards_.back().bytes + bytes > split_bytes)
      shards_.emplace_back();
    for (; i < end; ++i) {
      shard_of_[i] = shards_.size() - 1;
      shards_.back().tensors.push_back(i);
    }
    shards_.back().bytes += bytes;
  }
  for (Shard& shard : shards_) {
    std::stable_sort(shard.tensors.begin(), shard.tensors.end(),
                     [&](size_t a, size_t b) { return alignment(tensors_[a]) > alignment(tensors_[b]); });
    uint64_t offset = 0;
    for (const size_t i : shard.tensors) {
      offsets_[i] = offset;
      offset += tensors_[i].bytes;
    }
  }
}

std::string SafetensorsWriter::head(const Shard& shard) const {
  nlohmann::ordered_json json;
  json["__metadata__"]["format"] = "pt";
  for (const size_t i : shard.tensors) {
    const SafetensorsOutput& tensor = tensors_[i];
    json[tensor.name] = {{"dtype", tensor.type},
                         {"shape", sizes(tensor.shape)},
                         {"data_offsets", {offsets_[i], offsets_[i] + tensor.bytes}}};
  }
  std::string text = json.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

void SafetensorsWriter::write(size_t index, std::span<const std::byte> data) {
  const SafetensorsOutput& tensor = tensors_[index];
  const Shard& shard = shards_[shard_of_[index]];
  NIBBLE_CHECK(data.size() == tensor.bytes, "tensor ", tensor.name, ": expected ", tensor.bytes,
               " bytes to write, found ", data.size());
  const auto at = static_cast<off_t>(shard.begin + offsets_[index]);
  shard.check(fseeko(shard.file.get(), at, SEEK_SET) == 0 &&
                  std::fwrite(data.data(), 1, data.size(), shard.file.get()) == data.size(),
              folder_);
}

uint64_t SafetensorsWriter::finish() {
  uint64_t total = 0, bytes = 0;
  nlohmann::ordered_json index;
  for (const Shard& shard : shards_) {
    shard.check(std::fflush(shard.file.get()) == 0 && fsync(fileno(shard.file.get())) == 0, folder_);
    total += shard.bytes;
    bytes += shard.begin + shard.bytes;
  }
  if (shards_.size() == 1) return bytes;
  index["metadata"]["total_size"] = total;
  for (size_t i = 0; i < tensors_.size(); ++i) index["weight_map"][tensors_[i].name] = shards_[shard_of_[i]].name;
  Shard file;
  file.name = "model.safetensors.index.json";
  const std::string text = index.dump(2) + "\n";
  file.file.reset(std::fopen((folder_ + "/" + file.name).c_str(), "wbx"));
  file.check(file.file != nullptr && std::fwrite(text.data(), 1, text.size(), file.file.get()) == text.size() &&
                 std::fflush(file.file.get()) == 0 && fsync(fileno(file.file.get())) == 0,
             folder_);
  return bytes + text.size();
}

}  // namespace nibble::models
