// SPDX-License-Identifier: Apache-2.0
#include "models/io/gguf_writer.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <list>
#include <type_traits>

#include <unistd.h>

#include "tensor/check.h"

namespace nibble::models {

namespace {

using Type = GgufValue::Type;
using Values = std::span<const std::pair<std::string, GgufValue>>;

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
        else if constexpr (std::is_same_v<T, std::vector<std::string>>)
          for (const std::string& text : data) append_string(out, text);
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
  explicit NewFile(std::string path)
      : path_(std::move(path)), partial_(path_ + ".partial." + std::to_string(getpid())) {
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
  void sync() { check(std::fflush(file_) == 0 && fsync(fileno(file_)) == 0, "write"); }
  /// Takes the name.
  void finish() {
    check(std::rename(partial_.c_str(), path_.c_str()) == 0, "rename");
    std::fclose(file_);
    file_ = nullptr;
  }

 private:
  void check(bool ok, const char* what) const {
    NIBBLE_CHECK(ok, path_, ": cannot ", what, " it: ", std::strerror(errno));
  }
  std::string path_, partial_;
  std::FILE* file_ = nullptr;
};

std::vector<std::string> native_names(std::span<const GgufOutput> tensors) {
  std::vector<std::string> names;
  for (const quant::BlockType* type : quant::native_block_types())
    for (const GgufOutput& tensor : tensors)
      if (tensor.type == type) {
        for (const std::string& name : names)
          NIBBLE_CHECK(quant::find_native_type(name)->block_bytes != type->block_bytes, "tensor ", tensor.name,
                       ": type ", type->name, " and type ", name, " have blocks of ", type->block_bytes,
                       " bytes and can't stand in one file");
        names.emplace_back(type->name);
        break;
      }
  for (const GgufOutput& tensor : tensors)
    NIBBLE_CHECK(names.empty() || tensor.type->name != "i8", "tensor ", tensor.name, " of i8 and tensors of type ",
                 names.front(), " can't stand in one file");
  return names;
}

uint64_t alignment_of(Values values) {
  for (const auto& [key, value] : values)
    if (key == "general.alignment") return std::get<uint64_t>(value.data);
  return 32;
}

GgufValue number(Type type, uint64_t value) {
  GgufValue out;
  out.type = type;
  if (type == Type::i32) out.data = static_cast<int64_t>(value);
  else out.data = value;
  return out;
}

/// One file; `extra` keys come after the others.
class ShardWriter {
 public:
  ShardWriter(std::string path, uint64_t alignment) : file_(std::move(path)), alignment_(alignment) {}

  uint64_t write(Values values, Values extra, std::span<const GgufOutput> tensors) {
    std::string head = "GGUF";
    append<uint32_t>(head, 3);
    append<uint64_t>(head, tensors.size());
    append<uint64_t>(head, values.size() + extra.size());
    for (const Values& part : {values, extra})
      for (const auto& [key, value] : part) {
        append_string(head, key);
        append_value(head, value);
      }
    uint64_t offset = 0, largest = 0;
    for (const GgufOutput& tensor : tensors) {
      append_tensor(head, tensor, offset);
      const uint64_t size = bytes_of(tensor);
      largest = std::max(largest, size);
      offset += padded(size);
    }
    head.resize(padded(head.size()));
    file_.write(head.data(), head.size());
    std::vector<std::byte> data(largest + alignment_);
    for (const GgufOutput& tensor : tensors) {
      const uint64_t size = bytes_of(tensor);
      tensor.fill(std::span(data).first(size));
      std::fill(data.begin() + static_cast<std::ptrdiff_t>(size),
                data.begin() + static_cast<std::ptrdiff_t>(padded(size)), std::byte{0});
      file_.write(data.data(), padded(size));
    }
    file_.sync();
    return head.size() + offset;
  }
  void finish() { file_.finish(); }

 private:
  uint64_t padded(uint64_t size) const { return (size + alignment_ - 1) / alignment_ * alignment_; }
  NewFile file_;
  uint64_t alignment_;
};

/// How many tensors each file gets.
std::vector<size_t> split(std::span<const GgufOutput> tensors, uint64_t split_bytes) {
  std::vector<size_t> counts = {0};
  uint64_t sum = 0;
  for (const GgufOutput& tensor : tensors) {
    const uint64_t size = bytes_of(tensor);
    if (split_bytes != 0 && counts.back() > 0 && sum + size > split_bytes) counts.push_back(0), sum = 0;
    ++counts.back();
    sum += size;
  }
  return counts;
}

std::string shard_path(std::string_view path, size_t index, size_t count) {
  if (count == 1) return std::string(path);
  if (path.ends_with(".gguf")) path.remove_suffix(5);
  char ending[64];
  std::snprintf(ending, sizeof ending, "-%05zu-of-%05zu.gguf", index + 1, count);
  return std::string(path) + ending;
}

}  // namespace

uint64_t write_gguf(const std::string& path, Values values, std::span<const GgufOutput> tensors, uint64_t split_bytes) {
  const std::vector<std::string> natives = native_names(tensors);
  const std::vector<size_t> counts = split(tensors, split_bytes);
  const uint64_t alignment = alignment_of(values);
  std::list<ShardWriter> shards;
  uint64_t bytes = 0;
  size_t first = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    std::vector<std::pair<std::string, GgufValue>> extra;
    if (!natives.empty()) {
      GgufValue list;
      list.type = Type::array;
      list.element = Type::string;
      list.count = natives.size();
      list.data = natives;
      extra.emplace_back(native_types_key, list);
    }
    if (counts.size() > 1) {
      extra.emplace_back("split.no", number(Type::u16, i));
      extra.emplace_back("split.count", number(Type::u16, counts.size()));
      extra.emplace_back("split.tensors.count", number(Type::i32, tensors.size()));
      if (i > 0 && alignment != 32) extra.emplace_back("general.alignment", number(Type::u32, alignment));
    }
    shards.emplace_back(shard_path(path, i, counts.size()), alignment);
    bytes += shards.back().write(i == 0 ? values : Values{}, extra, tensors.subspan(first, counts[i]));
    first += counts[i];
  }
  for (ShardWriter& shard : shards) shard.finish();
  return bytes;
}

}  // namespace nibble::models
