// SPDX-License-Identifier: Apache-2.0
#include "models/io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "models/io/metadata.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

constexpr uint64_t max_header_bytes = 100'000'000;

struct TypeName {
  std::string_view stored, ours;
};
constexpr TypeName type_names[] = {
    {"F64", "f64"},  {"F32", "f32"}, {"F16", "f16"}, {"BF16", "bf16"}, {"F8_E4M3", "f8_e4m3"}, {"F8_E5M2", "f8_e5m2"},
    {"BOOL", "bool"}, {"I8", "i8"},  {"U8", "u8"},   {"I16", "i16"},   {"U16", "u16"},         {"I32", "i32"},
    {"U32", "u32"},  {"I64", "i64"}, {"U64", "u64"}};

/// One entry of the header as it is read.
struct Entry {
  std::string name;
  std::optional<std::string> type;
  std::optional<std::vector<uint64_t>> shape, offsets;
};

/// Reads the header without building a tree, so that a hostile one costs no more memory than its own size.
///   {"__metadata__": {"key": "text"}, "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(const std::string& file) : file_(file) {}
  std::vector<Entry> entries;

  bool key(string_t& text) override {
    if (depth_ == 1) {
      entry_ = {};
      entry_.name = text;
      in_metadata_ = text == "__metadata__";
      if (in_metadata_ && std::exchange(has_metadata_, true)) bad("there twice");
    } else {
      field_ = text;
    }
    return true;
  }
  bool start_object(std::size_t) override {
    if (depth_ >= 2 || in_array_) bad("expected no object in '", printable(field_), "'");
    ++depth_;
    return true;
  }
  bool end_object() override {
    --depth_;
    if (depth_ != 1 || in_metadata_) return true;
    if (!entry_.type) bad("'dtype' is missing");
    if (!entry_.shape) bad("'shape' is missing");
    if (!entry_.offsets) bad("'data_offsets' is missing");
    if (entry_.offsets->size() != 2) bad("'data_offsets': expected two numbers, found ", entry_.offsets->size());
    entries.push_back(std::move(entry_));
    return true;
  }
  bool start_array(std::size_t) override {
    if (depth_ != 2 || in_metadata_ || in_array_) bad("an array where none is expected");
    std::optional<std::vector<uint64_t>>* array = field_ == "shape"          ? &entry_.shape
                                                  : field_ == "data_offsets" ? &entry_.offsets
                                                                             : nullptr;
    if (array == nullptr) bad("expected the keys dtype, shape and data_offsets, found '", printable(field_), "'");
    if (array->has_value()) bad("'", field_, "' is there twice");
    numbers_ = &array->emplace();
    in_array_ = true;
    return true;
  }
  bool end_array() override {
    in_array_ = false;
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (!in_array_) return unexpected();
    constexpr size_t longest = 32;
    if (numbers_->size() == longest) bad("'", field_, "': expected at most ", longest, " numbers");
    numbers_->push_back(value);
    return true;
  }
  bool string(string_t& text) override {
    if (in_metadata_ && depth_ == 2) return true;
    if (depth_ != 2 || in_array_ || field_ != "dtype") return unexpected();
    if (entry_.type) bad("'dtype' is there twice");
    entry_.type = text;
    return true;
  }
  // some writers have it so when there is none
  bool null() override { return depth_ == 1 && in_metadata_ ? true : unexpected(); }
  bool boolean(bool) override { return unexpected(); }
  bool number_integer(number_integer_t) override { return unexpected(); }
  bool number_float(number_float_t, const string_t&) override { return unexpected(); }
  bool binary(binary_t&) override { return unexpected(); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    fail(file_, ": header, byte ", position, ": not valid JSON: ", printable(error.what(), 200));
  }

 private:
  template <class... Args>
  [[noreturn]] void bad(const Args&... args) const {
    fail(file_, ": tensor '", printable(entry_.name), "': ", args...);
  }
  bool unexpected() const {
    if (depth_ == 0) fail(file_, ": header: expected an object of tensors");
    if (depth_ == 1) bad("expected an object with dtype, shape and data_offsets");
    if (in_metadata_) bad("expected texts only");
    bad("'", printable(field_), "': expected ", field_ == "dtype" ? "a text" : "unsigned integers");
  }

  const std::string& file_;
  Entry entry_;
  std::string field_;
  std::vector<uint64_t>* numbers_ = nullptr;
  int depth_ = 0;
  bool in_metadata_ = false, has_metadata_ = false, in_array_ = false;
};

/// What the entry says, checked against the size of the data.
StoredTensor make_tensor(Entry entry, const std::string& file, uint64_t data_begin, uint64_t data_bytes) {
  StoredTensor tensor;
  const auto check = [&](bool ok, const auto&... args) {
    if (!ok) fail(file, ": tensor '", printable(entry.name), "': ", args...);
  };
  const auto* known = std::find_if(std::begin(type_names), std::end(type_names),
                                   [&](const TypeName& t) { return t.stored == *entry.type; });
  check(known != std::end(type_names), "type '", printable(*entry.type), "' is not supported");
  tensor.element = find_element_type(known->ours);
  for (const quant::BlockType* type : quant::all_block_types())
    if (tensor.element == nullptr && type->name == known->ours) tensor.type = type;
  uint64_t elements = 1, bytes = 0;
  // a size is checked by itself too: beside a 0 it does not show in the product
  for (const uint64_t size : *entry.shape)
    check(!__builtin_mul_overflow(elements, size, &elements) && std::max(elements, size) <= uint64_t{1} << 62,
          "the dimensions' product is too large");
  check(!__builtin_mul_overflow(elements, tensor.block_bytes(), &bytes), "its size in bytes is above 2^64");
  const uint64_t begin = (*entry.offsets)[0], end = (*entry.offsets)[1];
  check(begin <= end && end <= data_bytes, "data_offsets ", begin, " to ", end, ": expected a range in the ",
        data_bytes, " bytes of data");
  check(end - begin == bytes, "data_offsets ", begin, " to ", end, ": expected ", bytes, " bytes, found ", end - begin);
  const std::vector<uint64_t>& shape = *entry.shape;
  const size_t merged = shape.size() > static_cast<size_t>(Shape::max_rank) ? shape.size() - Shape::max_rank : 0;
  for (size_t i = merged; i < shape.size(); ++i) tensor.shape.push_back(static_cast<int64_t>(shape[i]));
  // in the order of the check above, so that it can't overflow
  if (merged > 0)
    tensor.shape[0] = static_cast<int64_t>(std::accumulate(
        shape.begin(), shape.begin() + static_cast<int64_t>(merged) + 1, uint64_t{1}, std::multiplies<>()));
  tensor.name = std::move(entry.name);
  tensor.offset = data_begin + begin;
  tensor.bytes = bytes;
  return tensor;
}

/// The data must be covered, each byte once.
void check_cover(const std::vector<StoredTensor>& tensors, const std::string& file, uint64_t data_begin,
                 uint64_t file_bytes) {
  std::vector<uint32_t> order(tensors.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return std::pair(tensors[a].offset, tensors[a].bytes) < std::pair(tensors[b].offset, tensors[b].bytes);
  });
  uint64_t at = data_begin;
  for (const uint32_t i : order) {
    const StoredTensor& tensor = tensors[i];
    NIBBLE_CHECK(tensor.offset == at, file, ": tensor '", printable(tensor.name), "' begins at byte ",
                 tensor.offset - data_begin, " of the data: expected ", at - data_begin,
                 tensor.offset < at ? ", it overlaps another" : ", there is a hole before it");
    at += tensor.bytes;
  }
  NIBBLE_CHECK(at == file_bytes, file, ": ", file_bytes - at, " bytes after the last tensor belong to none");
}

}  // namespace

std::vector<StoredTensor> read_safetensors(const MappedFile& file, size_t index) {
  const std::span<const std::byte> bytes = file.bytes();
  NIBBLE_CHECK(bytes.size() >= 8, file.path(), ": not a safetensors file: expected at least 8 bytes, found ",
               bytes.size());
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);
  NIBBLE_CHECK(header_bytes <= bytes.size() - 8 && header_bytes <= max_header_bytes, file.path(), ": header of ",
               header_bytes, " bytes: expected at most ", std::min<uint64_t>(bytes.size() - 8, max_header_bytes));
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + 8, static_cast<size_t>(header_bytes));
  NIBBLE_CHECK(header.starts_with('{'), file.path(),
               ": not a safetensors file: expected a header that begins with '{'");

  HeaderReader reader(file.path());
  nlohmann::json::sax_parse(header.begin(), header.end(), &reader);
  std::vector<StoredTensor> tensors;
  tensors.reserve(reader.entries.size());
  const uint64_t data_begin = 8 + header_bytes;
  for (Entry& entry : reader.entries) {
    tensors.push_back(make_tensor(std::move(entry), file.path(), data_begin, bytes.size() - data_begin));
    tensors.back().file = index;
  }
  check_cover(tensors, file.path(), data_begin, bytes.size());
  std::sort(tensors.begin(), tensors.end(),
            [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
  for (size_t i = 1; i < tensors.size(); ++i)
    NIBBLE_CHECK(tensors[i - 1].name != tensors[i].name, file.path(), ": tensor '", printable(tensors[i].name),
                 "' is there twice");
  return tensors;
}

}  // namespace nibble::models
