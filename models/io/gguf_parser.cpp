// SPDX-License-Identifier: Apache-2.0
#include "models/io/gguf_parser.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <numeric>
#include <type_traits>

#include <utf8proc.h>

#include "models/io/gguf_types.h"
#include "models/io/gguf_writer.h"

namespace nibble::models {

namespace {

using Type = GgufValue::Type;

// What an honest file stays far below; a hostile one of many gigabytes cannot make the parsed form larger than these.
constexpr uint64_t max_values = 1u << 20, max_tensors = 1u << 20, max_array_elements = 1u << 24;
constexpr size_t max_key_bytes = 64 * 1024, max_tensor_name_bytes = 63;
constexpr uint64_t min_value_bytes = 8 + 1 + 4 + 1;            // key length, key, type, value
constexpr uint64_t min_tensor_bytes = 8 + 1 + 4 + 8 + 4 + 8;   // name length, name, rank, one size, type, offset
constexpr uint64_t max_alignment = 1u << 20;

bool is_text(std::string_view s) {
  while (!s.empty()) {
    utf8proc_int32_t code = 0;
    const auto size = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(s.data()),
                                       static_cast<utf8proc_ssize_t>(s.size()), &code);
    if (size <= 0 || code == 0) return false;
    s.remove_prefix(static_cast<size_t>(size));
  }
  return true;
}

uint64_t element_bytes(Type type) {
  switch (type) {
    case Type::u8:
    case Type::i8:
    case Type::boolean: return 1;
    case Type::u16:
    case Type::i16: return 2;
    case Type::u32:
    case Type::i32:
    case Type::f32: return 4;
    case Type::u64:
    case Type::i64:
    case Type::f64:
    case Type::string: return 8;  // of a string: its length
    case Type::array: break;
  }
  return 12;
}

/// Indices of `items` in the order of their names.
template <class Items, class NameOf>
std::vector<uint32_t> sorted_by_name(const Items& items, const NameOf& name_of) {
  std::vector<uint32_t> order(items.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return name_of(items[a]) < name_of(items[b]); });
  return order;
}

/// "dir/x-00001-of-00003.gguf": where the digits stand.
struct ShardName {
  std::string stem;  ///< "dir/x-"
  int index = 0, count = 0;
};
bool parse_shard_name(const std::string& path, ShardName& out) {
  static constexpr std::string_view pattern = "-#####-of-#####.gguf";
  if (path.size() < pattern.size()) return false;
  const std::string_view tail = std::string_view(path).substr(path.size() - pattern.size());
  for (size_t i = 0; i < pattern.size(); ++i)
    if (pattern[i] == '#' ? tail[i] < '0' || tail[i] > '9' : tail[i] != pattern[i]) return false;
  out.stem = path.substr(0, path.size() - pattern.size() + 1);
  out.index = std::stoi(std::string(tail.substr(1, 5)));
  out.count = std::stoi(std::string(tail.substr(10, 5)));
  return true;
}
std::string shard_path(const ShardName& name, int index) {
  const auto digits = [](int n) { return std::to_string(100000 + n).substr(1); };
  return name.stem + digits(index) + "-of-" + digits(name.count) + ".gguf";
}

}  // namespace

GgufParser::GgufParser(Gguf& out, size_t file)
    : out_(out), file_(file), path_(out.files_[file].path()), bytes_(out.files_[file].bytes()) {}

template <class T>
T GgufParser::take(const char* what) {
  if (left() < sizeof(T)) bad("the file ends inside ", what, ": expected ", sizeof(T), " bytes, found ", left());
  T value;
  std::memcpy(&value, bytes_.data() + at_, sizeof(T));
  at_ += sizeof(T);
  return value;
}

std::string GgufParser::take_string(const char* what) {
  const auto size = take<uint64_t>(what);
  if (size > left()) bad("the length of ", what, " is ", size, ", but only ", left(), " bytes are left");
  std::string text(reinterpret_cast<const char*>(bytes_.data() + at_), static_cast<size_t>(size));
  at_ += static_cast<size_t>(size);
  return text;
}

std::string GgufParser::take_name(const char* what, size_t limit) {
  const auto size = take<uint64_t>(what);
  if (size == 0) bad(what, " is empty");
  if (size > left()) bad("the length of ", what, " is ", size, ", but only ", left(), " bytes are left");
  if (size > limit) bad(what, " has ", size, " bytes: expected at most ", limit);
  std::string text(reinterpret_cast<const char*>(bytes_.data() + at_), static_cast<size_t>(size));
  if (!is_text(text)) bad(what, " '", printable(text), "' is not UTF-8 text");
  at_ += static_cast<size_t>(size);
  return text;
}

void GgufParser::parse_header() {
  if (bytes_.size() < 4 || std::memcmp(bytes_.data(), "GGUF", 4) != 0)
    bad("not a GGUF file: expected the first four bytes to be 'GGUF'",
        bytes_.empty() ? std::string(", found an empty file")
                       : ", found '" + printable({reinterpret_cast<const char*>(bytes_.data()),
                                                  std::min<size_t>(bytes_.size(), 4)}) + "'");
  at_ = 4;
  version_ = take<uint32_t>("the version");
  if (version_ != 0 && (version_ & 0xffff) == 0) bad("a big-endian file: only little-endian files are supported");
  if (version_ != 2 && version_ != 3) bad("GGUF version ", version_, ": expected 2 or 3");
  tensor_count_ = take<uint64_t>("the number of tensors");
  value_count_ = take<uint64_t>("the number of keys");
  const uint64_t tensors_fit = std::min(left() / min_tensor_bytes, max_tensors);
  const uint64_t values_fit = std::min(left() / min_value_bytes, max_values);
  if (tensor_count_ > tensors_fit)
    bad(tensor_count_, " tensors: expected at most ", tensors_fit, " in a file of this size");
  if (value_count_ > values_fit) bad(value_count_, " keys: expected at most ", values_fit, " in a file of this size");
}

Type GgufParser::take_type() {
  const auto id = take<uint32_t>("the value type");
  if (id > static_cast<uint32_t>(Type::f64)) bad("value type ", id, ": expected 0 to 12");
  return static_cast<Type>(id);
}

template <class T>
void GgufParser::parse_numbers(GgufValue& value) {
  using Wide = std::conditional_t<std::is_floating_point_v<T>, double, int64_t>;
  std::vector<Wide> numbers(static_cast<size_t>(value.count));
  for (Wide& number : numbers) {
    const T raw = take<T>("an array element");
    if constexpr (std::is_same_v<T, uint64_t>)
      if (raw > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        bad("array element ", raw, " is above 2^63 - 1");
    number = static_cast<Wide>(raw);
  }
  value.data = std::move(numbers);
}

void GgufParser::parse_array(GgufValue& value) {
  value.element = take_type();
  if (value.element == Type::array) bad("an array of arrays is not supported");
  value.count = take<uint64_t>("the array's length");
  const uint64_t fit = left() / element_bytes(value.element);
  if (value.count > fit) bad("an array of ", value.count, " elements of type ", name(value.element),
                             ": there is room for ", fit, " in the file");
  array_elements_ += value.count;
  if (array_elements_ > max_array_elements) bad("more than ", max_array_elements, " array elements in one file");
  switch (value.element) {
    case Type::u8: return parse_numbers<uint8_t>(value);
    case Type::i8: return parse_numbers<int8_t>(value);
    case Type::u16: return parse_numbers<uint16_t>(value);
    case Type::i16: return parse_numbers<int16_t>(value);
    case Type::u32: return parse_numbers<uint32_t>(value);
    case Type::i32: return parse_numbers<int32_t>(value);
    case Type::u64: return parse_numbers<uint64_t>(value);
    case Type::i64: return parse_numbers<int64_t>(value);
    case Type::f32: return parse_numbers<float>(value);
    case Type::f64: return parse_numbers<double>(value);
    case Type::boolean: {
      parse_numbers<uint8_t>(value);
      for (int64_t element : std::get<std::vector<int64_t>>(value.data))
        if (element > 1) bad("bool array element ", element, ": expected 0 or 1");
      return;
    }
    case Type::string: {
      std::vector<std::string> texts;
      texts.reserve(static_cast<size_t>(value.count));
      for (uint64_t i = 0; i < value.count; ++i) texts.push_back(take_string("a string of the array"));
      value.data = std::move(texts);
      return;
    }
    case Type::array: break;
  }
}

void GgufParser::parse_scalar(GgufValue& value) {
  switch (value.type) {
    case Type::u8: value.data = uint64_t{take<uint8_t>("the value")}; break;
    case Type::u16: value.data = uint64_t{take<uint16_t>("the value")}; break;
    case Type::u32: value.data = uint64_t{take<uint32_t>("the value")}; break;
    case Type::u64: value.data = take<uint64_t>("the value"); break;
    case Type::i8: value.data = int64_t{take<int8_t>("the value")}; break;
    case Type::i16: value.data = int64_t{take<int16_t>("the value")}; break;
    case Type::i32: value.data = int64_t{take<int32_t>("the value")}; break;
    case Type::i64: value.data = take<int64_t>("the value"); break;
    case Type::f32: value.data = double{take<float>("the value")}; break;
    case Type::f64: value.data = take<double>("the value"); break;
    case Type::boolean: {
      const auto raw = take<uint8_t>("the value");
      if (raw > 1) bad("bool value ", int{raw}, ": expected 0 or 1");
      value.data = raw == 1;
      break;
    }
    case Type::string: value.data = take_string("the string"); break;
    case Type::array: parse_array(value); break;
  }
}

void GgufParser::parse_value() {
  item_ = "key " + std::to_string(values_.size());
  std::string key = take_name("the key", max_key_bytes);
  item_ = "key '" + printable(key) + "'";
  GgufValue value;
  value.type = take_type();
  parse_scalar(value);
  if (key == "general.alignment") {
    if (value.type != Type::u32) bad("expected type u32, found ", name(value.type));
    alignment_ = std::get<uint64_t>(value.data);
    if (!std::has_single_bit(alignment_) || alignment_ < 8 || alignment_ > max_alignment)
      bad("alignment ", alignment_, ": expected a power of two from 8 to ", max_alignment);
  }
  values_.emplace_back(std::move(key), std::move(value));
}

void GgufParser::parse_native_types() {
  const GgufValue* list = value(native_types_key);
  if (list == nullptr) return;
  item_ = message("key '", native_types_key, "'");
  const auto* names = std::get_if<std::vector<std::string>>(&list->data);
  if (names == nullptr) bad("expected an array of strings");
  for (const std::string& type_name : *names) {
    const quant::BlockType* type = quant::find_native_type(type_name);
    if (type == nullptr) bad("block type '", printable(type_name), "' is not known: the file may need a newer version");
    for (const quant::BlockType* other : native_types_)
      if (other == type) bad("block type '", type_name, "' is there twice");
    native_types_.push_back(type);
  }
}

const quant::BlockType* GgufParser::native_type(uint32_t& rank, uint64_t (&sizes)[4]) const {
  if (native_types_.empty()) return nullptr;
  for (const quant::BlockType* type : native_types_) {
    if (rank < 3 || sizes[0] != type->block_bytes) continue;
    if (sizes[1] > static_cast<uint64_t>(std::numeric_limits<int64_t>::max() / type->block_elements))
      bad("dimension 1 is too large");
    sizes[0] = sizes[1] * static_cast<uint64_t>(type->block_elements);
    sizes[1] = sizes[2], sizes[2] = rank > 3 ? sizes[3] : 0, sizes[3] = 0;
    --rank;
    return type;
  }
  bad("dimensions of type I8 begin with ", sizes[0], ", of ", rank,
      ": expected the bytes of a block of one of the types in ", native_types_key, ", blocks per row, rows");
}

void GgufParser::parse_tensor() {
  item_ = "tensor " + std::to_string(tensors_.size());
  GgufTensor tensor;
  tensor.file = file_;
  tensor.name = take_name("the tensor's name", max_tensor_name_bytes);
  item_ = "tensor '" + printable(tensor.name) + "'";
  auto rank = take<uint32_t>("the number of dimensions");
  if (rank < 1 || rank > 4) bad(rank, " dimensions: expected 1 to 4");
  uint64_t sizes[4] = {}, elements = 1;
  for (uint32_t i = 0; i < rank; ++i) sizes[i] = take<uint64_t>("a dimension");
  const auto id = take<uint32_t>("the type");
  if (id == quant::native_gguf_id) tensor.type = native_type(rank, sizes);
  for (uint32_t i = 0; i < rank; ++i) {
    if (sizes[i] == 0 || sizes[i] > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      bad("dimension ", i, " is ", static_cast<int64_t>(sizes[i]), ": expected at least 1");
    if (__builtin_mul_overflow(elements, sizes[i], &elements) ||
        elements > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      bad("the dimensions' product is above 2^63 - 1");
  }
  for (uint32_t i = rank; i-- > 0;) tensor.shape.push_back(static_cast<int64_t>(sizes[i]));

  const GgufTypeName known = gguf_type_name(id);
  if (tensor.type == nullptr) tensor.type = quant::find_block_type(id);
  if (tensor.type == nullptr) tensor.element = find_element_type(known.name);
  if (tensor.type == nullptr && tensor.element == nullptr) {
    if (known.name.empty()) bad("unknown type id ", id);
    if (known.removed) bad("type ", known.name, " (id ", id, ") was removed from GGUF: convert the model again");
    bad("type ", known.name, " (id ", id, ") is for activations: expected weights");
  }
  const auto block = static_cast<uint64_t>(tensor.block_elements());
  if (sizes[0] % block != 0)
    bad("rows of ", sizes[0], " elements of type ", tensor.type_name(), ": expected a multiple of ", block);
  if (__builtin_mul_overflow(elements / block, tensor.block_bytes(), &tensor.bytes))
    bad("its size in bytes is above 2^64");
  tensor.offset = take<uint64_t>("the offset");
  if (tensor.offset % alignment_ != 0)
    bad("offset ", tensor.offset, " is not a multiple of the alignment, ", alignment_);
  tensors_.push_back(std::move(tensor));
}

/// Turns offsets in the data section into offsets in the file; nothing may reach out of it or overlap.
void GgufParser::place_tensors() {
  const uint64_t begin = (uint64_t{at_} + alignment_ - 1) / alignment_ * alignment_;
  const uint64_t size = bytes_.size();
  for (GgufTensor& tensor : tensors_) {
    item_ = "tensor '" + printable(tensor.name) + "'";
    uint64_t end = 0;
    if (__builtin_add_overflow(begin, tensor.offset, &tensor.offset) ||
        __builtin_add_overflow(tensor.offset, tensor.bytes, &end) || end > size)
      bad("its ", tensor.bytes, " bytes at offset ", tensor.offset, " reach beyond the file's ", size, " bytes");
  }
  std::vector<uint32_t> order(tensors_.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return tensors_[a].offset < tensors_[b].offset; });
  uint64_t end = std::min(begin, size), unused = 0;
  const GgufTensor* previous = nullptr;
  for (uint32_t i : order) {
    const GgufTensor& tensor = tensors_[i];
    item_ = "tensor '" + printable(tensor.name) + "'";
    if (tensor.offset < end) bad("it overlaps tensor '", printable(previous->name), "'");
    if (tensor.offset - end >= alignment_) unused += tensor.offset - end;
    end = tensor.offset + tensor.bytes;
    previous = &tensor;
  }
  if (unused > 0) out_.warnings_.push_back(message(path_, ": ", unused, " unused bytes between tensors"));
  if (size - end >= alignment_) out_.warnings_.push_back(message(path_, ": ", size - end, " unused bytes at the end"));
}

void GgufParser::parse() {
  parse_header();
  values_.reserve(static_cast<size_t>(value_count_));
  for (uint64_t i = 0; i < value_count_; ++i) parse_value();
  parse_native_types();
  tensors_.reserve(static_cast<size_t>(tensor_count_));
  for (uint64_t i = 0; i < tensor_count_; ++i) parse_tensor();
  item_ = "header";
  const auto order = sorted_by_name(values_, [](const auto& v) -> const std::string& { return v.first; });
  for (size_t i = 1; i < order.size(); ++i)
    if (values_[order[i - 1]].first == values_[order[i]].first)
      bad("key '", printable(values_[order[i]].first), "' is there twice");
  place_tensors();
}

const GgufValue* GgufParser::value(std::string_view key) const {
  for (const auto& [k, v] : values_)
    if (k == key) return &v;
  return nullptr;
}

uint64_t GgufParser::split_number(std::string_view key, uint64_t low, uint64_t high) const {
  const GgufValue* found = value(key);
  if (found == nullptr) fail(path_, ": key '", key, "' is missing: expected it in a shard");
  uint64_t number = 0;
  if (const auto* plain = std::get_if<uint64_t>(&found->data)) number = *plain;
  else if (const auto* with_sign = std::get_if<int64_t>(&found->data); with_sign != nullptr && *with_sign >= 0)
    number = static_cast<uint64_t>(*with_sign);
  else fail(path_, ": key '", key, "': expected an unsigned integer, found another type or a negative number");
  if (number < low || number > high)
    fail(path_, ": key '", key, "': expected ", low == high ? "" : message("between ", low, " and "), high, ", found ",
         number);
  return number;
}

void GgufParser::append_shard(Gguf& out, const std::string& path, uint64_t index, uint64_t count) {
  out.files_.emplace_back(path);
  GgufParser shard(out, static_cast<size_t>(index));
  shard.parse();
  shard.split_number("split.no", index, index);
  shard.split_number("split.count", count, count);
  const GgufValue* arch = shard.value("general.architecture");
  const GgufValue* expected = out.find("general.architecture");
  NIBBLE_CHECK(arch == nullptr || expected == nullptr || arch->data == expected->data, path,
               ": key 'general.architecture' differs from the first shard's: a shard of another model");
  NIBBLE_CHECK(out.tensors_.size() + shard.tensors_.size() <= max_tensors, path, ": more than ", max_tensors,
               " tensors in all shards");
  std::move(shard.tensors_.begin(), shard.tensors_.end(), std::back_inserter(out.tensors_));
}

Gguf GgufParser::open(const std::string& path) {
  Gguf gguf;
  gguf.path_ = path;
  ShardName name;
  const bool named_as_shard = parse_shard_name(path, name);
  gguf.files_.emplace_back(path);
  GgufParser first(gguf, 0);
  first.parse();
  gguf.version_ = first.version_;

  constexpr uint64_t shard_limit = 99999, tensor_limit = max_tensors;
  uint64_t shards = 1, expected_tensors = 0;
  if (first.value("split.count") != nullptr || (named_as_shard && name.count != 1))
    shards = first.split_number("split.count", 1, shard_limit);
  if (shards > 1) {
    NIBBLE_CHECK(named_as_shard, path, ": one of ", shards, " shards: expected a name like model-00001-of-00002.gguf");
    NIBBLE_CHECK(name.index == 1 && first.split_number("split.no", 0, shards - 1) == 0, path,
                 ": not the first shard: open ", shard_path(name, 1));
    NIBBLE_CHECK(static_cast<uint64_t>(name.count) == shards, path, ": key 'split.count': expected ", name.count,
                 " as in the file's name, found ", shards);
    expected_tensors = first.split_number("split.tensors.count", 0, tensor_limit);
  }
  gguf.values_ = std::move(first.values_);
  gguf.tensors_ = std::move(first.tensors_);
  gguf.value_order_ = sorted_by_name(gguf.values_, [](const auto& v) -> const std::string& { return v.first; });
  for (uint64_t i = 1; i < shards; ++i) append_shard(gguf, shard_path(name, static_cast<int>(i) + 1), i, shards);
  NIBBLE_CHECK(shards == 1 || gguf.tensors_.size() == expected_tensors, path, ": key 'split.tensors.count' is ",
               expected_tensors, ", but the shards hold ", gguf.tensors_.size(), " tensors");

  gguf.tensor_order_ = sorted_by_name(gguf.tensors_, [](const auto& t) -> const std::string& { return t.name; });
  for (size_t i = 1; i < gguf.tensor_order_.size(); ++i) {
    const GgufTensor& tensor = gguf.tensors_[gguf.tensor_order_[i]];
    NIBBLE_CHECK(gguf.tensors_[gguf.tensor_order_[i - 1]].name != tensor.name, gguf.files_[tensor.file].path(),
                 ": tensor '", printable(tensor.name), "' is there twice");
  }
  for (const MappedFile& file : gguf.files_) file.check_unchanged();
  return gguf;
}

Gguf Gguf::open(const std::string& path) { return GgufParser::open(path); }

}  // namespace nibble::models
