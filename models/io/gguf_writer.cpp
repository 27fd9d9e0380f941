// SPDX-License-Identifier: Apache-2.0
#include "models/io/gguf_writer.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <type_traits>

#include <unistd.h>

#include "tensor/check.h"

namespace nibble::models {

namespace {

using Type = GgufValue::Type;
constexpr uint64_t alignment = 32;

/// Number `value` as the bytes of type T.
template <class T, class From>
void append(std::string& out, From value) {
  const T converted = static_cast<T>(value);
  out.append(reinterpret_cast<const char*>(&converted), sizeof(converted));
}

void append_string(std::string& out, std::string_view text) {
  append<uint64_t>(out, text.size());
  out.append(text);
}

template <class From>
void append_number(std::string& out, Type type, From value) {
  switch (type) {
    case Type::u8: return append<uint8_t>(out, value);
    case Type::i8: return append<int8_t>(out, value);
    case Type::u16: return append<uint16_t>(out, value);
    case Type::i16: return append<int16_t>(out, value);
    case Type::u32: return append<uint32_t>(out, value);
    case Type::i32: return append<int32_t>(out, value);
    case Type::f32: return append<float>(out, value);
    case Type::boolean: return append<uint8_t>(out, value != From{} ? 1 : 0);
    case Type::u64: return append<uint64_t>(out, value);
    case Type::i64: return append<int64_t>(out, value);
    case Type::f64: return append<double>(out, value);
    case Type::string:
    case Type::array: break;
  }
  fail("a number can't be written as a ", name(type));
}

void append_value(std::string& out, const GgufValue& value) {
  append<uint32_t>(out, static_cast<uint32_t>(value.type));
  if (value.type == Type::array) {
    append<uint32_t>(out, static_cast<uint32_t>(value.element));
    append<uint64_t>(out, value.count);
  }
  std::visit(
      [&]<class T>(const T& data) {
        if constexpr (std::is_same_v<T, std::string>) append_string(out, data);
        else if constexpr (std::is_same_v<T, std::vector<std::string>>) for (const std::string& text : data) append_string(out, text);
        else if constexpr (std::is_arithmetic_v<T>) append_number(out, value.type, data);
        else for (const auto& number : data) append_number(out, value.element, number);
      },
      value.data);
}

bool is_native(const quant::BlockType& type) { return quant::find_native_type(type.name) == &type; }

uint64_t bytes_of(const GgufOutput& tensor) {
  const auto block = static_cast<int64_t>(tensor.type->block_elements);
  NIBBLE_CHECK(tensor.shape[-1] % block == 0, "tensor ", tensor.name, ": rows of ", tensor.shape[-1], " of type ",
               tensor.type->name, ": expected a multiple of ", block);
  return static_cast<uint64_t>(tensor.shape.elements() / block) * tensor.type->block_bytes;
}

void append_tensor(std::string& out, const GgufOutput& tensor, uint64_t offset) {
  append_string(out, tensor.name);
  std::vector<uint64_t> sizes;
  if (is_native(*tensor.type)) {
    sizes.push_back(tensor.type->block_bytes);
    sizes.push_back(static_cast<uint64_t>(tensor.shape[-1] / tensor.type->block_elements));
  } else {
    sizes.push_back(static_cast<uint64_t>(tensor.shape[-1]));
  }
  for (int i = tensor.shape.rank() - 2; i >= 0; --i) sizes.push_back(static_cast<uint64_t>(tensor.shape[i]));
  append<uint32_t>(out, sizes.size());
  for (uint64_t size : sizes) append<uint64_t>(out, size);
  append<uint32_t>(out, tensor.type->gguf_id);
  append<uint64_t>(out, offset);
}

/// A file that takes its name when it is whole.
class NewFile {
 public:
  explicit NewFile(std::string path) : path_(std::move(path)), partial_(path_ + ".partial." + std::to_string(getpid())) {
    file_ = std::fopen(partial_.c_str(), "wbx");
    check(file_ != nullptr, "create");
  }
  ~NewFile() {
    if (file_ == nullptr) return;
    std::fclose(file_);
    std::remove(partial_.c_str());
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  void write(const void* data, size_t bytes) { check(std::fwrite(data, 1, bytes, file_) == bytes, "write"); }
  void finish() {
    check(std::fflush(file_) == 0 && fsync(fileno(file_)) == 0, "write");
    check(std::rename(partial_.c_str(), path_.c_str()) == 0, "rename");
    std::fclose(file_);
    file_ = nullptr;
  }

 private:
  void check(bool ok, const char* what) const { NIBBLE_CHECK(ok, path_, ": cannot ", what, " it: ", std::strerror(errno)); }
  std::string path_, partial_;
  std::FILE* file_ = nullptr;
};

std::vector<std::string> native_names(std::span<const GgufOutput> tensors) {
  std::vector<std::string> names;
  for (const quant::BlockType* type : quant::native_block_types())
    for (const GgufOutput& tensor : tensors)
      if (tensor.type == type) {
        names.emplace_back(type->name);
        break;
      }
  return names;
}

}  // namespace

void write_gguf(const std::string& path, std::span<const std::pair<std::string, GgufValue>> values,
                std::span<const GgufOutput> tensors) {
  const std::vector<std::string> natives = native_names(tensors);
  std::string head = "GGUF";
  append<uint32_t>(head, 3);
  append<uint64_t>(head, tensors.size());
  append<uint64_t>(head, values.size() + (natives.empty() ? 0 : 1));
  for (const auto& [key, value] : values) {
    append_string(head, key);
    append_value(head, value);
  }
  if (!natives.empty()) {
    append_string(head, native_types_key);
    GgufValue list;
    list.type = Type::array;
    list.element = Type::string;
    list.count = natives.size();
    list.data = natives;
    append_value(head, list);
  }
  uint64_t offset = 0, largest = 0;
  for (const GgufOutput& tensor : tensors) {
    append_tensor(head, tensor, offset);
    const uint64_t size = bytes_of(tensor);
    largest = std::max(largest, size);
    offset += (size + alignment - 1) / alignment * alignment;
  }
  head.resize((head.size() + alignment - 1) / alignment * alignment);
  NewFile file(path);
  file.write(head.data(), head.size());
  std::vector<std::byte> data(largest + alignment);
  for (const GgufOutput& tensor : tensors) {
    const uint64_t size = bytes_of(tensor), padded = (size + alignment - 1) / alignment * alignment;
    tensor.fill(std::span(data).first(size));
    std::fill(data.begin() + static_cast<std::ptrdiff_t>(size), data.begin() + static_cast<std::ptrdiff_t>(padded), std::byte{0});
    file.write(data.data(), padded);
  }
  file.finish();
}

}  // namespace nibble::models
