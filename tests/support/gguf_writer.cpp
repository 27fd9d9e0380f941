// SPDX-License-Identifier: Apache-2.0
#include "tests/support/gguf_writer.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace nibble::test {

TempDir::TempDir() {
  std::string name = (std::filesystem::temp_directory_path() / "nibble-test-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make a folder like " + name);
  path_ = name;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void write_file(const std::string& path, std::string_view bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!out.flush()) throw std::runtime_error("cannot write " + path);
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

namespace {
template <class T>
std::string raw_array(uint32_t type, std::span<const T> values) {
  std::string out = raw(type) + raw(uint64_t{values.size()});
  for (const T& value : values) out += raw(value);
  return out;
}
}  // namespace

GgufWriter& GgufWriter::raw_value(std::string_view key, uint32_t type, std::string_view bytes) {
  values.push_back({std::string(key), type, std::string(bytes), key.size()});
  return *this;
}
GgufWriter& GgufWriter::str(std::string_view key, std::string_view v) { return raw_value(key, vstring, raw_string(v)); }
GgufWriter& GgufWriter::u8(std::string_view key, uint8_t v) { return raw_value(key, vu8, raw(v)); }
GgufWriter& GgufWriter::u16(std::string_view key, uint16_t v) { return raw_value(key, vu16, raw(v)); }
GgufWriter& GgufWriter::u32(std::string_view key, uint32_t v) { return raw_value(key, vu32, raw(v)); }
GgufWriter& GgufWriter::i32(std::string_view key, int32_t v) { return raw_value(key, vi32, raw(v)); }
GgufWriter& GgufWriter::u64(std::string_view key, uint64_t v) { return raw_value(key, vu64, raw(v)); }
GgufWriter& GgufWriter::i64(std::string_view key, int64_t v) { return raw_value(key, vi64, raw(v)); }
GgufWriter& GgufWriter::f(std::string_view key, float v) { return raw_value(key, vf32, raw(v)); }
GgufWriter& GgufWriter::f64(std::string_view key, double v) { return raw_value(key, vf64, raw(v)); }
GgufWriter& GgufWriter::boolean(std::string_view key, bool v) { return raw_value(key, vbool, raw(uint8_t{v})); }
GgufWriter& GgufWriter::strs(std::string_view key, std::span<const std::string> texts) {
  std::string bytes = raw(uint32_t{vstring}) + raw(uint64_t{texts.size()});
  for (const std::string& text : texts) bytes += raw_string(text);
  return raw_value(key, varray, bytes);
}
GgufWriter& GgufWriter::strs(std::string_view key, std::initializer_list<std::string> texts) {
  return strs(key, std::span<const std::string>(texts.begin(), texts.size()));
}
GgufWriter& GgufWriter::f32s(std::string_view key, std::span<const float> v) {
  return raw_value(key, varray, raw_array(vf32, v));
}
GgufWriter& GgufWriter::i32s(std::string_view key, std::span<const int32_t> v) {
  return raw_value(key, varray, raw_array(vi32, v));
}

GgufWriter& GgufWriter::tensor(std::string_view name, std::vector<uint64_t> shape, uint32_t type,
                               std::string_view bytes) {
  data.resize((data.size() + alignment - 1) / alignment * alignment, '\0');
  tensors.push_back({std::string(name), name.size(), static_cast<uint32_t>(shape.size()),
                     std::vector<uint64_t>(shape.rbegin(), shape.rend()), type, data.size()});
  data += bytes;
  return *this;
}
GgufWriter& GgufWriter::tensor(std::string_view name, std::vector<uint64_t> shape, std::span<const float> floats) {
  return tensor(name, std::move(shape), f32, {reinterpret_cast<const char*>(floats.data()), floats.size_bytes()});
}

std::string GgufWriter::build(std::vector<size_t>* boundaries) const {
  const auto mark = [&](const std::string& out) {
    if (boundaries != nullptr) boundaries->push_back(out.size());
  };
  std::string out = magic + raw(version);
  out += raw(tensor_count.value_or(tensors.size()));
  out += raw(value_count.value_or(values.size()));
  for (const Value& value : values) {
    mark(out);
    out += raw(value.key_bytes) + value.key + raw(value.type) + value.raw;
  }
  for (const TensorInfo& info : tensors) {
    mark(out);
    out += raw(info.name_bytes) + info.name + raw(info.rank);
    for (uint64_t size : info.sizes) out += raw(size);
    out += raw(info.type) + raw(info.offset);
  }
  if (!data.empty()) out.resize((out.size() + alignment - 1) / alignment * alignment, '\0');
  mark(out);
  return out + data;
}

std::string GgufWriter::bytes() const { return build(nullptr); }

std::vector<size_t> GgufWriter::boundaries() const {
  std::vector<size_t> out;
  build(&out);
  return out;
}

}  // namespace nibble::test
