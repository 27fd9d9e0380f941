// SPDX-License-Identifier: Apache-2.0
// Reads one GGUF file. Internal to models/io.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/io/gguf.h"
#include "tensor/check.h"

namespace nibble::models {

/// Moves through an untrusted file and opens shards. Every length is compared with what is left before it is used.
class GgufParser {
 public:
  static Gguf open(const std::string& path);

 private:
  static void append_shard(Gguf& out, const std::string& path, uint64_t index, uint64_t count);
  /// Appends the tensors of `file` to `out`, and its values when `file` is the first.
  GgufParser(Gguf& out, size_t file);
  void parse();
  void parse_header();
  void parse_value();
  void parse_scalar(GgufValue& value);
  void parse_array(GgufValue& value);
  template <class T>
  void parse_numbers(GgufValue& value);
  void parse_native_types();
  /// If the dimensions, as in the file, are those of one of our own types: the type, and the dimensions it stands for.
  const quant::BlockType* native_type(uint32_t& rank, uint64_t (&sizes)[4]) const;
  void parse_tensor();
  void place_tensors();
  GgufValue::Type take_type();
  template <class T>
  T take(const char* what);
  std::string take_string(const char* what);
  std::string take_name(const char* what, size_t limit);
  uint64_t left() const { return bytes_.size() - at_; }
  const GgufValue* value(std::string_view key) const;
  /// The unsigned number at `key`, of any integer type.
  uint64_t split_number(std::string_view key, uint64_t low, uint64_t high) const;
  template <class... Args>
  [[noreturn]] void bad(const Args&... args) const {
    fail(path_, ": ", item_, " (byte ", at_, "): ", args...);
  }

  Gguf& out_;
  size_t file_;
  std::string path_;
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
  std::string item_ = "header";  // what errors are about
  uint32_t version_ = 0;
  uint64_t tensor_count_ = 0, value_count_ = 0, array_elements_ = 0, alignment_ = 32;
  std::vector<std::pair<std::string, GgufValue>> values_;
  std::vector<GgufTensor> tensors_;
  std::vector<const quant::BlockType*> native_types_;
};

}  // namespace nibble::models
