// SPDX-License-Identifier: Apache-2.0
// compressed-tensors, as llm-compressor saves it. w = scale * (code - zero); scales are for groups of columns, rows,
// blocks or the whole, which their shape says. The tensors tell which of the formats a module is in:
//
//   pack-quantized   weight_packed i32 (n, ceil(k * bits / 32))   codes + 2^(bits-1) along k, lowest bits first
//                    weight_zero_point i32 (ceil(n * bits / 32), groups), optional, likewise along n
//                    weight_shape (2): n, k      weight_g_idx (k), optional: the group of each column
//   int-quantized    weight i8 (n, k), weight_zero_point i8 (n, groups), optional
//   float-quantized  weight f8_e4m3 (n, k)
#include <nlohmann/json.hpp>

#include "models/io/schemes/module.h"
#include "models/io/schemes/scale_grid.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

constexpr std::string_view groups_key = "quantization_config.config_groups";

void check(const Metadata& config) {
  const nlohmann::json* groups = config.find(groups_key);
  NIBBLE_CHECK(groups != nullptr && groups->is_object(), config.file(), ": key '", groups_key, "': expected an object");
  for (const auto& [name, group] : groups->items()) {
    const std::string key = message(groups_key, ".", name, ".weights");
    if (config.find(key) == nullptr) continue;
    config.need_int(key + ".num_bits", 1, 8);
  }
  const std::string sparsity = config.get_string("quantization_config.sparsity_config.format", "dense");
  NIBBLE_CHECK(sparsity == "dense", config.file(),
               ": key 'quantization_config.sparsity_config.format': expected dense, found '", printable(sparsity), "'");
  const nlohmann::json* transforms = config.find("quantization_config.transform_config");
  NIBBLE_CHECK(transforms == nullptr || transforms->empty(), config.file(),
               ": key 'quantization_config.transform_config': transforms are not supported");
}

std::string_view module(const StoredTensor& tensor) {
  const std::string_view name = tensor.name;
  const bool packed = name.ends_with(".weight_packed");
  const bool plain = name.ends_with(".weight") && (tensor.type_name() == "i8" || tensor.type_name() == "f8_e4m3");
  return packed || plain ? name.substr(0, name.rfind('.')) : "";
}

/// Some group of the configuration has this width; and, with `columns`, as many scales for a row of `k`.
bool configured(const Metadata& config, int bits, int64_t k = 1, int64_t columns = 0) {
  for (const auto& [name, group] : config.find(groups_key)->items()) {
    const std::string key = message(groups_key, ".", name, ".weights");
    if (!config.has(key + ".num_bits") || config.need_int(key + ".num_bits", 1, 8) != bits) continue;
    const int64_t size = config.get_int(key + ".group_size", -1, -1, int64_t{1} << 31);
    if (columns == 0 || columns == (size > 0 ? (k + size - 1) / size : 1)) return true;
  }
  return false;
}

void read_groups(const Module& m, CodedMatrix& matrix) {
  const ModulePart part = m.find(".weight_g_idx", {"i32", "i64"});
  if (!part) return;
  part.expect({matrix.k});
  std::vector<int32_t> groups = group_indices(part, matrix.k, matrix.scales_per_row());
  if (!groups.empty()) matrix.groups = std::move(groups);
}

CodedMatrix make_packed(const Module& m, const ModulePart& codes) {
  const ModulePart shape = m.need(".weight_shape", {"i64", "i32"});
  shape.expect({2});
  codes.expect({-1, -1});
  float sizes[2];
  shape.floats(0, 2, sizes);
  CodedMatrix matrix;
  matrix.n = codes.dim(0);
  NIBBLE_CHECK(sizes[0] == static_cast<float>(matrix.n) && sizes[1] >= 32 && sizes[1] < 0x1p24f, shape.where,
               ": expected ", matrix.n, " rows, at least 32 columns, found (", sizes[0], ", ", sizes[1], ")");
  matrix.k = static_cast<int64_t>(sizes[1]);
  const int64_t words = codes.dim(1);
  matrix.bits = static_cast<int>(words * 32 / matrix.k);
  NIBBLE_CHECK(configured(m.config, matrix.bits) && (matrix.k * matrix.bits + 31) / 32 == words, codes.where,
               ": expected rows of ", matrix.k, " codes of the width of a config group, found shape ",
               to_string(codes.tensor->shape));
  matrix.type = message("packed", matrix.bits);
  const ScaleGrid grid(m.need(".weight_scale", float_names), matrix.n, matrix.k, false);
  NIBBLE_CHECK(configured(m.config, matrix.bits, matrix.k, grid.columns), grid.part.where,
               ": expected scales for the groups of a config group of ", matrix.bits, " bits, found shape ",
               to_string(grid.part.tensor->shape));
  matrix.scale = grid.type();
  matrix.group = grid.columns_per_scale;
  read_groups(m, matrix);
  const ModulePart zeros = m.find(".weight_zero_point", {"i32"});
  if (zeros) zeros.expect({(matrix.n * matrix.bits + 31) / 32, grid.columns});
  matrix.zero_point = zeros ? ZeroPoint::integer : ZeroPoint::symmetric;
  matrix.codes = [data = codes.data, words, k = matrix.k, bits = matrix.bits](int64_t row, int64_t rows, uint8_t* out) {
    for (int64_t i = row; i < row + rows; ++i, out += k)
      unpack_stream(data + static_cast<size_t>(i * words) * 4, bits, k, out);
  };
  matrix.scales = [grid, zeros, bits = matrix.bits](int64_t row, int64_t rows, float* out, float* offsets) {
    for (int64_t i = row; i < row + rows; ++i, out += grid.columns)
      grid.line(i, out);
    for (int64_t i = row; i < row + rows; ++i)
      for (int64_t g = 0; g < grid.columns; ++g) {
        if (!zeros) {
          *offsets++ = static_cast<float>(1 << (bits - 1));
          continue;
        }
        const int64_t bit = i * bits;
        uint32_t pair[2] = {load_at<uint32_t>(zeros.data, bit / 32 * grid.columns + g), 0};
        if (bit % 32 + bits > 32) pair[1] = load_at<uint32_t>(zeros.data, (bit / 32 + 1) * grid.columns + g);
        const uint64_t two = pair[0] | uint64_t{pair[1]} << 32;
        *offsets++ = static_cast<float>(two >> (bit % 32) & ((1u << bits) - 1));
      }
  };
  return matrix;
}

CodedMatrix make_bytes(const Module& m, const ModulePart& codes) {
  codes.expect({-1, -1});
  CodedMatrix matrix;
  matrix.n = codes.dim(0);
  matrix.k = codes.dim(1);
  const bool floats = codes.tensor->type_name() == "f8_e4m3";
  const ScaleGrid grid(m.need(".weight_scale", float_names), matrix.n, matrix.k, floats);
  if (floats) return scaled_floats(m, codes, grid, grid.type());
  matrix.type = "int8";
  matrix.bits = 8;
  matrix.scale = grid.type();
  matrix.group = grid.columns_per_scale;
  read_groups(m, matrix);
  const ModulePart zeros = m.find(".weight_zero_point", {"i8"});
  if (zeros)
    NIBBLE_CHECK(zeros.tensor->shape.elements() == grid.rows * grid.columns, zeros.where,
                 ": expected as many as scales, ", grid.rows * grid.columns, ", found shape ",
                 to_string(zeros.tensor->shape));
  matrix.zero_point = zeros ? ZeroPoint::integer : ZeroPoint::symmetric;
  matrix.codes = [data = codes.data, k = matrix.k](int64_t row, int64_t rows, uint8_t* out) {
    for (int64_t i = row * k; i < (row + rows) * k; ++i)
      *out++ = static_cast<uint8_t>(load_at<uint8_t>(data, i) ^ 0x80);
  };
  matrix.scales = [grid, zeros](int64_t row, int64_t rows, float* out, float* offsets) {
    for (int64_t i = row; i < row + rows; ++i, out += grid.columns) {
      grid.line(i, out);
      for (int64_t g = 0; g < grid.columns; ++g)
        *offsets++ =
            128.0f + (zeros
                          ? static_cast<float>(load_at<int8_t>(zeros.data, i / grid.rows_per_scale * grid.columns + g))
                          : 0.0f);
    }
  };
  return matrix;
}

CodedMatrix make(const Module& m) {
  if (const ModulePart packed = m.find(".weight_packed", {"i32"})) return make_packed(m, packed);
  return make_bytes(m, m.need(".weight", {"i8", "f8_e4m3"}));
}

}  // namespace

extern const Scheme compressed_tensors_scheme = {"compressed-tensors", check, module, make};

}  // namespace nibble::models
