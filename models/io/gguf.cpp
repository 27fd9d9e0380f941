// SPDX-License-Identifier: Apache-2.0
// What a parsed GGUF file answers; gguf_parser.cpp reads it.
#include "models/io/gguf.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "models/io/gguf_parser.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {
/// Arrays up to here become part of Metadata: per-layer numbers do, vocabularies do not.
constexpr uint64_t metadata_array_limit = 4096;

nlohmann::json to_json(const GgufValue& value) {
  return std::visit([](const auto& v) { return nlohmann::json(v); }, value.data);
}
}  // namespace

std::string_view name(GgufValue::Type type) {
  static constexpr std::string_view names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                               "bool", "string", "array", "u64", "i64", "f64"};
  return names[static_cast<uint32_t>(type)];
}

const GgufValue* Gguf::find(std::string_view key) const {
  const auto it = std::lower_bound(value_order_.begin(), value_order_.end(), key,
                                   [&](uint32_t i, std::string_view k) { return values_[i].first < k; });
  return it != value_order_.end() && values_[*it].first == key ? &values_[*it].second : nullptr;
}

const GgufTensor* Gguf::tensor(std::string_view name) const {
  const auto it = std::lower_bound(tensor_order_.begin(), tensor_order_.end(), name,
                                   [&](uint32_t i, std::string_view n) { return tensors_[i].name < n; });
  return it != tensor_order_.end() && tensors_[*it].name == name ? &tensors_[*it] : nullptr;
}

std::span<const std::byte> Gguf::bytes(const GgufTensor& tensor) const {
  return files_[tensor.file].bytes().subspan(tensor.offset, tensor.bytes);
}

uint64_t Gguf::file_bytes() const {
  uint64_t sum = 0;
  for (const MappedFile& file : files_) sum += file.bytes().size();
  return sum;
}

Metadata Gguf::metadata() const {
  const GgufValue* arch = find("general.architecture");
  NIBBLE_CHECK(arch != nullptr, path_, ": key 'general.architecture' is missing: expected a string");
  NIBBLE_CHECK(arch->type == GgufValue::Type::string, path_, ": key 'general.architecture': expected a string, found ",
               name(arch->type));
  auto json = nlohmann::json::object();
  for (const auto& [key, value] : values_)
    if (value.type != GgufValue::Type::array || value.count <= metadata_array_limit) json[key] = to_json(value);
  return Metadata(Metadata::Source::gguf, path_, std::get<std::string>(arch->data), std::move(json));
}

}  // namespace nibble::models
