// SPDX-License-Identifier: Apache-2.0
#include "models/model_source.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "models/catalog.h"
#include "models/io/gguf_types.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

using Role = SourceTensor::Role;
using Type = GgufValue::Type;

struct Use {
  Role role = Role::matrix;
  std::string weight;
};

Role role_of(std::string_view name) {
  if (name == "embedding") return Role::embedding;
  return name == "output" ? Role::output : Role::matrix;
}

/// By the tensor's name in the file.
std::map<std::string, Use> find_uses(const Checkpoint& file, const Arch& arch, int layers) {
  std::map<std::string, Use> uses;
  for (const Name& name : arch.names) {
    if (stays_exact(name.name)) continue;
    const bool layered = name.paths.find("{}") != std::string_view::npos;
    for (int layer = layered ? 0 : -1; layer < (layered ? layers : 0); ++layer) {
      std::string_view paths = name.paths;
      for (bool more = true; more;) {
        const size_t bar = paths.find('|');
        std::string path(paths.substr(0, bar));
        path.erase(0, path.find_first_not_of("?="));
        path.erase(std::min(path.size(), path.find('#')));
        if (const size_t at = path.find("{}"); at != std::string::npos) path.replace(at, 2, std::to_string(layer));
        const std::string weight = (layered ? message("blk.", layer, ".") : "") + std::string(name.name) + ".weight";
        if (file.tensor(path + ".weight") != nullptr)
          uses.try_emplace(path + ".weight", Use{role_of(name.name), weight});
        more = bar != std::string_view::npos;
        if (more) paths.remove_prefix(bar + 1);
      }
    }
  }
  return uses;
}

SourceTensor source_of(const Checkpoint& file, const StoredTensor& tensor, const std::map<std::string, Use>& uses) {
  SourceTensor out;
  out.name = tensor.name;
  out.shape = tensor.shape;
  out.bytes = tensor.bytes;
  const auto use = uses.find(tensor.name);
  if (use != uses.end() && tensor.shape.rank() >= 2) {
    out.role = use->second.role;
    out.weight = use->second.weight;
  }
  out.exact = tensor.type != nullptr ? tensor.type : gguf_plain_type(tensor.element->name);
  const bool floats = out.exact == nullptr;
  if (floats) out.exact = quant::find_block_type(0);
  const int64_t k = tensor.shape[-1];
  const uint64_t row_bytes = static_cast<uint64_t>(k / tensor.block_elements()) * tensor.block_bytes();
  out.read = [&file, &tensor, k, row_bytes](int64_t row, int64_t rows, float* to) {
    to_floats(tensor, file.bytes(tensor).data() + static_cast<uint64_t>(row) * row_bytes, rows * k, to);
  };
  out.copy = [&file, &tensor, floats](std::span<std::byte> to) {
    if (floats)
      return to_floats(tensor, file.bytes(tensor).data(), tensor.shape.elements(), reinterpret_cast<float*>(to.data()));
    std::memcpy(to.data(), file.bytes(tensor).data(), to.size());
  };
  out.release = [&file, &tensor] { file.file(tensor).release(tensor.offset, tensor.bytes); };
  return out;
}

GgufValue scalar(Type type, decltype(GgufValue::data) data) {
  GgufValue value;
  value.type = type;
  value.data = std::move(data);
  return value;
}

template <class T>
GgufValue array(Type element, std::vector<T> data) {
  GgufValue value;
  value.type = Type::array;
  value.element = element;
  value.count = data.size();
  value.data = std::move(data);
  return value;
}

}  // namespace

GgufValue gguf_value(uint32_t number) { return scalar(Type::u32, uint64_t{number}); }
GgufValue gguf_value(float number) { return scalar(Type::f32, double{number}); }
GgufValue gguf_value(bool flag) { return scalar(Type::boolean, flag); }
GgufValue gguf_value(std::string text) { return scalar(Type::string, std::move(text)); }
GgufValue gguf_value(std::vector<std::string> texts) { return array(Type::string, std::move(texts)); }
GgufValue gguf_floats(std::vector<double> numbers) { return array(Type::f32, std::move(numbers)); }
GgufValue gguf_integers(std::vector<int64_t> numbers) { return array(Type::i32, std::move(numbers)); }

bool stays_exact(std::string_view weight) { return weight.starts_with("router") || weight.starts_with("position"); }

ModelSource gguf_source(const Checkpoint& file) {
  const Arch& arch = arch_of(file.metadata());
  const auto uses = find_uses(file, arch, arch.config(file.metadata()).layers);
  ModelSource source;
  for (const auto& [key, value] : file.gguf()->values())
    if (!key.starts_with("split.")) source.values.emplace_back(key, value);
  for (const StoredTensor& tensor : file.tensors()) source.tensors.push_back(source_of(file, tensor, uses));
  return source;
}

}  // namespace nibble::models
