// SPDX-License-Identifier: Apache-2.0
// bitsandbytes. With four bits w = map[code] * absmax of its block of consecutive weights, rounded to the type of the
// state; two codes a byte, the first in the high nibble:
//
//   weight u8 (n * k / 2, 1)   weight.quant_map f32 (16)   weight.absmax f32 (blocks)
//   weight.quant_state.bitsandbytes__nf4 or __fp4          JSON: blocksize, shape, dtype
//   nested: weight.absmax u8; absmax = nested_quant_map[byte] * nested_absmax[its block] + nested_offset
//
// With eight, w = code * SCB / 127: weight i8 (n, k), SCB f32 (n).
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>

#include "models/io/json_text.h"
#include "models/io/schemes/module.h"
#include "models/io/schemes/scale_grid.h"
#include "tensor/check.h"
#include "tensor/panel.h"

namespace nibble::models {

namespace {

constexpr std::string_view state_mark = ".weight.quant_state.bitsandbytes__";

void check(const Metadata&) {}

std::string_view module(const StoredTensor& tensor) {
  const std::string_view name = tensor.name;
  if (const size_t at = name.find(state_mark); at != std::string_view::npos) return name.substr(0, at);
  return name.ends_with(".weight") && tensor.type_name() == "i8" ? name.substr(0, name.rfind('.')) : "";
}

Metadata read_state(const Module& m, std::string& kind) {
  for (const char* name : {"nf4", "fp4"}) {
    const ModulePart part = m.find(std::string(state_mark) + name, {"u8"});
    if (!part) continue;
    kind = name;
    constexpr uint64_t limit = 1 << 16;
    NIBBLE_CHECK(part.tensor->bytes <= limit, part.where, ": expected at most ", limit, " bytes, found ",
                 part.tensor->bytes);
    const std::string text(reinterpret_cast<const char*>(part.data), static_cast<size_t>(part.tensor->bytes));
    nlohmann::json values = parse_json(text, part.where);
    NIBBLE_CHECK(values.is_object(), part.where, ": expected an object, found ", values.type_name());
    return Metadata(Metadata::Source::hugging_face, part.where, "", std::move(values));
  }
  fail(m.folder.path(), ": module ", printable(m.name), ": expected a state of nf4 or fp4");
}

int64_t dimension(const Metadata& state, size_t i) {
  const nlohmann::json* shape = state.find("shape");
  const bool right = shape != nullptr && shape->is_array() && shape->size() == 2 && (*shape)[i].is_number_unsigned() &&
                     (*shape)[i] > 0 && (*shape)[i] < int64_t{1} << 31;
  NIBBLE_CHECK(right, state.file(), ": key 'shape': expected two sizes");
  return (*shape)[i].get<int64_t>();
}

DType state_type(const Metadata& state) {
  const std::string name = state.get_string("dtype", "bfloat16");
  NIBBLE_CHECK(name == "bfloat16" || name == "float16" || name == "float32", state.file(),
               ": key 'dtype': expected bfloat16, float16 or float32, found '", printable(name), "'");
  return name == "bfloat16" ? DType::bf16 : name == "float16" ? DType::f16 : DType::f32;
}

/// The largest magnitude of each block.
std::vector<float> read_peaks(const Module& m, const Metadata& state, int64_t blocks) {
  const bool nested = state.has("nested_blocksize");
  const ModulePart part = m.need(".weight.absmax", {nested ? "u8" : "f32"});
  part.expect({blocks});
  std::vector<float> peaks(static_cast<size_t>(blocks));
  part.floats(0, blocks, peaks.data());
  if (!nested) return peaks;
  const int64_t block = state.need_int("nested_blocksize", 1, 1 << 20), count = (blocks + block - 1) / block;
  const auto offset = static_cast<float>(state.need_float("nested_offset", -3e38, 3e38));
  const ModulePart outer = m.need(".weight.nested_absmax", {"f32"}), map = m.need(".weight.nested_quant_map", {"f32"});
  outer.expect({count});
  map.expect({256});
  float values[256];
  map.floats(0, 256, values);
  std::vector<float> outers(static_cast<size_t>(count));
  outer.floats(0, count, outers.data());
  for (int64_t i = 0; i < blocks; ++i) {
    float& peak = peaks[static_cast<size_t>(i)];
    peak = values[static_cast<size_t>(peak)] * outers[static_cast<size_t>(i / block)] + offset;
  }
  return peaks;
}

/// Whether these are the values of the book.
bool is_book(const std::vector<float>& values, const FloatBook& book) {
  return std::equal(values.begin(), values.end(), book.values);
}

/// The codes as they are, where the map is one that we know, blocks are parts of rows or whole ones and scales are of
/// common sizes.
void keep_codes(CodedMatrix& matrix, const std::byte* data, const std::vector<float>& values,
                const std::shared_ptr<const std::vector<float>>& peaks, int64_t block) {
  const uint8_t codebook = matrix.type == "nf4" ? books::nf4_float : books::fp4_float;
  // scales stand for as much of a block as fits every row
  const int64_t group = std::gcd(std::gcd(block, matrix.k), int64_t{max_group});
  if (group < block_k || !is_book(values, *float_book(codebook)) || !scales_fit(codebook, matrix.scale, *peaks)) return;
  matrix.bits = 4;
  matrix.codebook = codebook;
  matrix.product = matrix.scale;
  matrix.group = group;
  matrix.codes = [data, k = matrix.k](int64_t row, int64_t rows, uint8_t* out) {
    for (int64_t i = row * k / 2; i < (row + rows) * k / 2; ++i) {
      const auto byte = load_at<uint8_t>(data, i);
      *out++ = byte >> 4;
      *out++ = byte & 15;
    }
  };
  matrix.scales = [peaks, group, block, k = matrix.k](int64_t row, int64_t rows, float* out, float* offsets) {
    std::fill(offsets, offsets + rows * k / group, 0.0f);
    for (int64_t i = row * k; i < (row + rows) * k; i += group) *out++ = (*peaks)[static_cast<size_t>(i / block)];
  };
}

CodedMatrix make_nibbles(const Module& m) {
  CodedMatrix matrix;
  const Metadata state = read_state(m, matrix.type);
  matrix.n = dimension(state, 0);
  matrix.k = dimension(state, 1);
  matrix.scale = state_type(state);
  const int64_t block = state.need_int("blocksize", 1, 1 << 20), elements = matrix.n * matrix.k;
  const ModulePart codes = m.need(".weight", {"u8", "i8", "bf16", "f16", "f32"}),
                   map = m.need(".weight.quant_map", {"f32"});
  NIBBLE_CHECK(codes.tensor->bytes == static_cast<uint64_t>((elements + 1) / 2), codes.where, ": expected ",
               (elements + 1) / 2, " bytes for (", matrix.n, ", ", matrix.k, "), found ", codes.tensor->bytes);
  map.expect({16});
  std::vector<float> values(16);
  map.floats(0, 16, values.data());
  auto peaks = std::make_shared<const std::vector<float>>(read_peaks(m, state, (elements + block - 1) / block));
  keep_codes(matrix, codes.data, values, peaks, block);
  matrix.floats = [data = codes.data, values, peaks, block, k = matrix.k](int64_t row, int64_t rows, float* out) {
    for (int64_t i = row * k; i < (row + rows) * k; ++i) {
      const unsigned byte = load_at<uint8_t>(data, i / 2);
      *out++ = values[i % 2 == 0 ? byte >> 4 : byte & 15] * (*peaks)[static_cast<size_t>(i / block)];
    }
  };
  return matrix;
}

CodedMatrix make_bytes(const Module& m) {
  const ModulePart codes = m.need(".weight", {"i8"}), scales = m.need(".SCB", {"f32"});
  codes.expect({-1, -1});
  CodedMatrix matrix;
  matrix.type = "int8";
  matrix.n = codes.dim(0);
  matrix.k = matrix.group = codes.dim(1);
  scales.expect({matrix.n});
  matrix.bits = 8;
  matrix.scale = DType::f32;
  matrix.codes = [data = codes.data, k = matrix.k](int64_t row, int64_t rows, uint8_t* out) {
    for (int64_t i = row * k; i < (row + rows) * k; ++i)
      *out++ = static_cast<uint8_t>(load_at<uint8_t>(data, i) ^ 0x80);
  };
  matrix.scales = [scales](int64_t row, int64_t rows, float* out, float* offsets) {
    scales.floats(row, rows, out);
    for (int64_t i = 0; i < rows; ++i) {
      out[i] *= 1.0f / 127;
      offsets[i] = 128;
    }
  };
  return matrix;
}

CodedMatrix make(const Module& m) {
  const bool state = m.find(std::string(state_mark) + "nf4", {"u8"}) || m.find(std::string(state_mark) + "fp4", {"u8"});
  return state ? make_nibbles(m) : make_bytes(m);
}

}  // namespace

extern const Scheme bitsandbytes_scheme = {"bitsandbytes", check, module, make};

}  // namespace nibble::models
