// SPDX-License-Identifier: Apache-2.0
#include "models/float_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "models/gguf_folder.h"
#include "tensor/check.h"
#include "tensor/dtype.h"

namespace nibble::models {

namespace {

constexpr uint64_t side_file_limit = uint64_t{1} << 30;

void store(float value, DType type, const std::string& where, std::byte* out) {
  if (type == DType::f32) {
    std::memcpy(out, &value, sizeof value);
    return;
  }
  const uint16_t bits = type == DType::f16 ? f32_to_f16(value) : f32_to_bf16(value);
  if (type == DType::f16 && std::isfinite(value))
    NIBBLE_CHECK(std::isfinite(f16_to_f32(bits)), where, ": ", value, " is too large for f16; expected bf16 or f32");
  std::memcpy(out, &bits, sizeof bits);
}

/// Files of text beside the weights, which say nothing about how those are stored.
std::vector<TextFile> side_files(const HfFolder& folder) {
  std::vector<TextFile> out;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    const std::string name = entry.path().filename().string(), ending = entry.path().extension().string();
    const bool text =
        ending == ".json" || ending == ".txt" || ending == ".model" || ending == ".jinja" || ending == ".tiktoken";
    if (!text || !entry.is_regular_file() || name == "config.json" || name == "quantize_config.json" ||
        name.ends_with(".index.json"))
      continue;
    out.push_back({name, [&folder, name] { return folder.text(name, side_file_limit).value_or(""); }});
  }
  return out;
}

FloatModel folder_floats(const Checkpoint& file, std::optional<DType> matrices) {
  const HfFolder& folder = *file.folder();
  FloatModel model{&file, {}, folder.text("config.json", side_file_limit).value(), folder.metadata(),
                   side_files(folder)};
  for (const StoredTensor& tensor : file.tensors()) {
    NIBBLE_CHECK(
        tensor.coded == nullptr && tensor.scales == nullptr && (tensor.type == nullptr || tensor.block_elements() == 1),
        file.where(tensor), ": expected a folder that is not quantised, found type ", tensor.type_name());
    FloatTensor out{.name = tensor.name, .shape = tensor.shape, .type = {}, .part = {.tensor = &tensor, .slice = {}}};
    // matrices of a stack are one after the other
    const int64_t elements = tensor.shape.elements();
    if (out.floats() && elements > 0)
      out.part.slice = make_slice(out.matrix() ? Shape{elements / tensor.shape[-1], tensor.shape[-1]} : Shape{elements},
                                  "", 0, {}, file.where(tensor));
    if (matrices && out.matrix() && out.type_name() != name(*matrices)) out.type = matrices;
    model.tensors.push_back(std::move(out));
  }
  return model;
}

bool before(const FloatTensor& tensor, std::string_view name) { return tensor.name < name; }

}  // namespace

std::string_view FloatTensor::type_name() const {
  return type.has_value() ? nibble::name(*type) : part.tensor->type_name();
}

uint64_t FloatTensor::bytes() const {
  return type.has_value() ? static_cast<uint64_t>(shape.elements()) * element_bytes(*type) : part.tensor->bytes;
}

uint64_t FloatTensor::stored_bytes() const { return type.has_value() ? part.bytes() : part.tensor->bytes; }

void FloatTensor::read_rows(const Checkpoint& file, int64_t row, int64_t rows, float* out) const {
  models::read_rows(part, file.bytes(*part.tensor).data(), row, rows, out);
}

std::vector<std::byte> FloatTensor::read(const Checkpoint& file, ThreadPool& pool) const {
  const std::string where = file.where(*part.tensor);
  const size_t size = element_bytes(*type);
  std::vector<std::byte> out(static_cast<size_t>(bytes()));
  if (part.slice.vector()) {
    std::vector<float> values(static_cast<size_t>(part.slice.rows()));
    read_vector(part, file.bytes(*part.tensor).data(), values.data());
    for (size_t i = 0; i < values.size(); ++i) store(values[i], *type, where, out.data() + i * size);
    return out;
  }
  const int64_t n = part.slice.rows(), k = part.slice.columns;
  pool.for_each(n, 16, [&](int64_t begin, int64_t end, const Worker&) {
    std::vector<float> values(static_cast<size_t>((end - begin) * k));
    read_rows(file, begin, end - begin, values.data());
    for (int64_t i = begin; i < end; ++i)
      for (int64_t j = 0; j < k; ++j) {
        const auto at = static_cast<size_t>(transposed ? j * n + i : i * k + j);
        store(values[static_cast<size_t>((i - begin) * k + j)], *type, where, out.data() + at * size);
      }
  });
  return out;
}

FloatModel open_floats(const Checkpoint& file, std::optional<DType> matrices) {
  if (file.gguf() == nullptr) return folder_floats(file, matrices);
  FloatModel model = unpack_gguf(file, matrices);
  std::sort(model.tensors.begin(), model.tensors.end(),
            [](const FloatTensor& a, const FloatTensor& b) { return before(a, b.name); });
  return model;
}

const FloatTensor* find_tensor(const FloatModel& model, std::string_view name) {
  if (model.file->folder() != nullptr) {
    const StoredTensor* stored = model.file->tensor(name);
    if (stored == nullptr) return nullptr;
    name = stored->name;
  }
  const auto found = std::lower_bound(model.tensors.begin(), model.tensors.end(), name, before);
  return found != model.tensors.end() && found->name == name ? &*found : nullptr;
}

std::string_view torch_name(DType type) {
  return type == DType::f16 ? "float16" : type == DType::bf16 ? "bfloat16" : "float32";
}

std::optional<DType> float_type(std::string_view text) {
  for (const DType type : {DType::f32, DType::f16, DType::bf16})
    if (text == name(type)) return type;
  return std::nullopt;
}

}  // namespace nibble::models
