// SPDX-License-Identifier: Apache-2.0
// FP8 as DeepSeek and transformers save it: weight f8_e4m3 (n, k), w = weight * scale rounded to the type the model
// computes in.
//
//   weight_scale_inv (ceil(n / a), ceil(k / b))    weight_block_size [a, b]; floats, or bytes that are exponents of two
//   weight_scale or weight_scale_inv               without blocks: one, or one a row
#include <nlohmann/json.hpp>

#include "models/io/schemes/module.h"
#include "models/io/schemes/scale_grid.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

constexpr std::string_view block_key = "quantization_config.weight_block_size";

void check(const Metadata& config) {
  const std::string format = config.get_string("quantization_config.fmt", "e4m3");
  NIBBLE_CHECK(format == "e4m3", config.file(), ": key 'quantization_config.fmt': expected e4m3, found '",
               printable(format), "'");
  const nlohmann::json* block = config.find(block_key);
  if (block == nullptr) return;
  bool right = block->is_array() && block->size() == 2;
  for (size_t i = 0; right && i < 2; ++i)
    right = (*block)[i].is_number_unsigned() && (*block)[i] > 0 && (*block)[i] < 1 << 20;
  NIBBLE_CHECK(right, config.file(), ": key '", block_key, "': expected two sizes, found ", printable(block->dump()));
}

std::string_view module(const StoredTensor& tensor) {
  const std::string_view name = tensor.name;
  return name.ends_with(".weight") && tensor.type_name() == "f8_e4m3" ? name.substr(0, name.rfind('.')) : "";
}

CodedMatrix make(const Module& m) {
  const ModulePart codes = m.need(".weight", {"f8_e4m3"});
  codes.expect({-1, -1});
  const TypeNames types = {"f32", "bf16", "f16", "u8"};
  ModulePart scales = m.find(".weight_scale_inv", types);
  if (!scales) scales = m.need(".weight_scale", types);
  const nlohmann::json* block = m.config.find(block_key);
  const int64_t n = codes.dim(0), k = codes.dim(1);
  if (block == nullptr) return scaled_floats(m, codes, ScaleGrid(scales, n, k, false), DType::f32);
  const ScaleGrid grid(scales, n, k, (*block)[0].get<int64_t>(), (*block)[1].get<int64_t>());
  return scaled_floats(m, codes, grid, DType::f32);
}

}  // namespace

extern const Scheme fp8_scheme = {"fp8", check, module, make};
extern const Scheme fbgemm_fp8_scheme = {"fbgemm_fp8", check, module, make};

}  // namespace nibble::models
