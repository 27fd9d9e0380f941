// SPDX-License-Identifier: Apache-2.0
// Writes small GGUF files for tests, well-formed or broken on purpose. Shares no code with the reader.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::test {

/// A folder that is deleted with everything in it.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::string operator/(std::string_view file) const { return path_ + "/" + std::string(file); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void write_file(const std::string& path, std::string_view bytes);
std::string read_file(const std::string& path);

/// Keys and tensors are written in the order they are added:
///   GgufWriter w;
///   w.str("general.architecture", "llama").u32("llama.block_count", 2).strs("tokenizer.ggml.tokens", {"a", "b"});
///   w.tensor("token_embd.weight", {n, k}, GgufWriter::f32, bytes);
///   w.save(dir / "model.gguf");
class GgufWriter {
 public:
  // Value types and tensor types by their numbers in the file.
  enum ValueType : uint32_t { vu8, vi8, vu16, vi16, vu32, vi32, vf32, vbool, vstring, varray, vu64, vi64, vf64 };
  enum TensorType : uint32_t { f32 = 0, f16 = 1, q4_0 = 2, q4_1 = 3, q8_0 = 8, q4_k = 12, q6_k = 14, bf16 = 30 };

  GgufWriter& str(std::string_view key, std::string_view value);
  GgufWriter& u8(std::string_view key, uint8_t value);
  GgufWriter& u16(std::string_view key, uint16_t value);
  GgufWriter& u32(std::string_view key, uint32_t value);
  GgufWriter& i32(std::string_view key, int32_t value);
  GgufWriter& u64(std::string_view key, uint64_t value);
  GgufWriter& i64(std::string_view key, int64_t value);
  GgufWriter& f(std::string_view key, float value);
  GgufWriter& f64(std::string_view key, double value);
  GgufWriter& boolean(std::string_view key, bool value);
  GgufWriter& strs(std::string_view key, std::span<const std::string> values);
  GgufWriter& strs(std::string_view key, std::initializer_list<std::string> values);
  GgufWriter& f32s(std::string_view key, std::span<const float> values);
  GgufWriter& i32s(std::string_view key, std::span<const int32_t> values);
  /// Any value: `raw` is what follows the type in the file.
  GgufWriter& raw_value(std::string_view key, uint32_t type, std::string_view raw);

  /// `shape` is outermost first, as in nibble: it is reversed on the way into the file. The offset is the next free
  /// aligned one.
  GgufWriter& tensor(std::string_view name, std::vector<uint64_t> shape, uint32_t type, std::string_view bytes);
  GgufWriter& tensor(std::string_view name, std::vector<uint64_t> shape, std::span<const float> values);

  // What is written; change it to break the file.
  struct Value {
    std::string key;
    uint32_t type;
    std::string raw;
    uint64_t key_bytes;  ///< the length as written
  };
  struct TensorInfo {
    std::string name;
    uint64_t name_bytes;  ///< the length as written
    uint32_t rank;
    std::vector<uint64_t> sizes;  ///< as written: innermost first
    uint32_t type;
    uint64_t offset;
  };
  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t alignment = 32;  ///< of the writer; add the key general.alignment yourself
  std::vector<Value> values;
  std::vector<TensorInfo> tensors;
  std::string data;  ///< the data section
  std::optional<uint64_t> tensor_count, value_count;  ///< nullopt: the true ones

  std::string bytes() const;
  /// The offset in bytes() at which each value, each tensor and the data section begin, in this order.
  std::vector<size_t> boundaries() const;
  void save(const std::string& path) const { write_file(path, bytes()); }

 private:
  std::string build(std::vector<size_t>* boundaries) const;
};

/// Little-endian bytes of a number, for raw edits.
template <class T>
std::string raw(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}
/// As GGUF writes a string: its length, then its bytes.
inline std::string raw_string(std::string_view text) { return raw(uint64_t{text.size()}) + std::string(text); }

}  // namespace nibble::test
