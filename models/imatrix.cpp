// SPDX-License-Identifier: Apache-2.0
#include "models/imatrix.h"

#include <cmath>
#include <cstring>

#include "models/io/gguf_writer.h"
#include "tensor/buffer.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

constexpr std::string_view sums_ending = ".in_sum2", counts_ending = ".counts";
constexpr const char* chunk_count_key = "imatrix.chunk_count";
constexpr const char* chunk_size_key = "imatrix.chunk_size";

/// The old form: int32 entries, each int32 length, name, int32 runs, int32 values, floats: sums of means over the runs.
class OldReader {
 public:
  OldReader(const std::string& path, std::span<const std::byte> bytes) : path_(path), bytes_(bytes) {}

  Imatrix read() {
    Imatrix out;
    const uint32_t entries = number("entries", 1, 1 << 20);
    for (uint32_t i = 0; i < entries; ++i) {
      const uint32_t length = number("the length of a name", 1, 4096);
      const std::string name(reinterpret_cast<const char*>(take(length)), length);
      const uint32_t runs = number("runs", 0, INT32_MAX), count = number("values", 1, 1 << 28);
      const std::byte* data = take(size_t{count} * sizeof(float));
      std::vector<float> values(count);
      std::memcpy(values.data(), data, count * sizeof(float));
      for (float& value : values) {
        value /= static_cast<float>(runs > 0 ? runs : 1);
        NIBBLE_CHECK(std::isfinite(value) && value >= 0, path_, ": a mean square of ", printable(name), " is ", value);
      }
      NIBBLE_CHECK(out.squares.emplace(name, std::move(values)).second, path_, ": tensor ", printable(name),
                   " is there twice");
    }
    // later versions say how many chunks there were, and of which text
    if (bytes_.size() >= at_ + 4) out.chunks = number("chunks", 0, INT32_MAX);
    return out;
  }

 private:
  const std::byte* take(size_t bytes) {
    NIBBLE_CHECK(bytes <= bytes_.size() - at_, path_, ": ends early: expected ", bytes, " bytes at byte ", at_);
    at_ += bytes;
    return bytes_.data() + at_ - bytes;
  }
  uint32_t number(const char* what, uint32_t low, uint32_t high) {
    uint32_t value;
    std::memcpy(&value, take(sizeof value), sizeof value);
    NIBBLE_CHECK(value >= low && value <= high, path_, ": not an importance matrix: ", value, " ", what, " at byte ",
                 at_ - 4);
    return value;
  }

  const std::string& path_;
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
};

std::vector<float> floats(const Gguf& gguf, const GgufTensor& tensor) {
  NIBBLE_CHECK(tensor.type_name() == "f32", gguf.path(), ": tensor ", printable(tensor.name), ": expected f32, found ",
               tensor.type_name());
  std::vector<float> values(static_cast<size_t>(tensor.shape.elements()));
  std::memcpy(values.data(), gguf.bytes(tensor).data(), values.size() * sizeof(float));
  return values;
}

uint32_t small_number(const Gguf& gguf, const char* key) {
  const GgufValue* value = gguf.find(key);
  const auto* number = value != nullptr ? std::get_if<uint64_t>(&value->data) : nullptr;
  return number != nullptr ? static_cast<uint32_t>(*number) : 0;
}

Imatrix read_gguf(const std::string& path) {
  const Gguf gguf = Gguf::open(path);
  Imatrix out;
  out.chunks = small_number(gguf, chunk_count_key);
  out.chunk_tokens = small_number(gguf, chunk_size_key);
  for (const GgufTensor& tensor : gguf.tensors()) {
    if (!tensor.name.ends_with(sums_ending)) continue;
    const std::string name = tensor.name.substr(0, tensor.name.size() - sums_ending.size());
    const GgufTensor* counts = gguf.tensor(name + std::string(counts_ending));
    NIBBLE_CHECK(counts != nullptr, path, ": no tensor ", printable(name), counts_ending);
    std::vector<float> values = floats(gguf, tensor);
    const std::vector<float> runs = floats(gguf, *counts);
    NIBBLE_CHECK(values.size() % runs.size() == 0, path, ": ", runs.size(), " counts for ", values.size(), " sums of ",
                 printable(name));
    for (const float count : runs)
      NIBBLE_CHECK(std::isfinite(count) && count >= 0, path, ": a count of ", printable(name), " is ", count);
    const size_t each = values.size() / runs.size();
    for (size_t i = 0; i < values.size(); ++i) {
      // experts that were never chosen have no inputs
      values[i] = runs[i / each] > 0 ? values[i] / runs[i / each] : 1.0f;
      NIBBLE_CHECK(std::isfinite(values[i]) && values[i] >= 0, path, ": a mean square of ", printable(name), " is ",
                   values[i]);
    }
    out.squares.emplace(name, std::move(values));
  }
  NIBBLE_CHECK(!out.squares.empty(), path, ": no tensors *", sums_ending, ": expected an importance matrix");
  return out;
}

GgufOutput float_tensor(std::string name, Shape shape, std::vector<float> values) {
  return {
      std::move(name), std::move(shape), quant::find_block_type(0),
      [values = std::move(values)](std::span<std::byte> out) { std::memcpy(out.data(), values.data(), out.size()); }};
}

}  // namespace

Imatrix Imatrix::read(const std::string& path) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  if (bytes.size() >= 4 && std::memcmp(bytes.data(), "GGUF", 4) == 0) return read_gguf(path);
  return OldReader(path, bytes).read();
}

void Imatrix::write(const std::string& path) const {
  const std::pair<std::string, GgufValue> values[] = {{"general.type", gguf_value(std::string("imatrix"))},
                                                      {"imatrix.datasets", gguf_value(std::vector<std::string>{})},
                                                      {chunk_count_key, gguf_value(chunks)},
                                                      {chunk_size_key, gguf_value(chunk_tokens)}};
  const auto count = static_cast<float>(uint64_t{chunks} * chunk_tokens);
  std::vector<GgufOutput> tensors;
  for (const auto& [name, means] : squares) {
    std::vector<float> sums = means;
    for (float& sum : sums) sum *= count;
    tensors.push_back(
        float_tensor(name + std::string(sums_ending), {1, static_cast<int64_t>(means.size())}, std::move(sums)));
    tensors.push_back(float_tensor(name + std::string(counts_ending), {1, 1}, {count}));
  }
  write_gguf(path, values, tensors);
}

Imatrix make_imatrix(const Calibration& calibration, const ModelSource& model, const CalibrateOptions& options,
                     int chunks) {
  Imatrix out;
  out.chunks = static_cast<uint32_t>(chunks);
  out.chunk_tokens = static_cast<uint32_t>(options.context);
  for (const SourceTensor& tensor : model.tensors)
    if (const auto found = calibration.find(tensor.weight); found != calibration.end() && tensor.shape.rank() == 2)
      out.squares[tensor.name] = found->second->squares;
  return out;
}

void check_imatrix_inputs(const std::string& tensor, size_t found, int64_t expected) {
  NIBBLE_CHECK(static_cast<int64_t>(found) == expected, "importance matrix: tensor ", tensor, ": expected ", expected,
               " inputs, found ", found);
}

Calibration use_imatrix(const Imatrix& imatrix, const ModelSource& model) {
  Calibration out;
  for (const SourceTensor& tensor : model.tensors) {
    const auto found = imatrix.squares.find(tensor.name);
    if (found == imatrix.squares.end() || tensor.weight.empty() || tensor.shape.rank() != 2) continue;
    check_imatrix_inputs(tensor.name, found->second.size(), tensor.shape[-1]);
    out[tensor.weight] = std::make_shared<quant::InputStatistics>(
        quant::InputStatistics{.squares = found->second, .feedback = {}, .order = {}});
  }
  NIBBLE_CHECK(!out.empty(), "importance matrix: none of its tensors is one of the model's");
  return out;
}

}  // namespace nibble::models
