// SPDX-License-Identifier: Apache-2.0
// How quantised layers stand in a folder of safetensors, and what config.json says of them. Internal to models/.
//
//   compressed-tensors, pack-quantized   integers; models/io/schemes/compressed_tensors.cpp has the picture
//   compressed-tensors, float-quantized  FP8 E4M3
//   bitsandbytes                         NF4 and FP4, not nested; models/io/schemes/bitsandbytes.cpp has the picture
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "models/folder_linears.h"
#include "models/io/safetensors_writer.h"

namespace nibble::models {

/// A matrix as quant::fit_codes makes it.
struct FolderCodes {
  std::vector<uint8_t> codes;          ///< (n, k)
  std::vector<float> scales, offsets;  ///< (n, groups)
};

/// Whether layers of a layout are read by bitsandbytes; else by compressed-tensors.
bool in_bitsandbytes(const QuantLayout& layout);
/// "f8_e4m3" as the header of a file has it: "F8_E4M3".
std::string upper_type_name(std::string_view name);
/// Tensors that stand for a quantised weight.
std::vector<SafetensorsOutput> outputs_of(const Linear& linear, size_t module);
/// Their bytes, in the same order.
std::vector<std::vector<std::byte>> bytes_of(const Linear& linear, const std::vector<SafetensorsOutput>& outputs,
                                             const FolderCodes& codes);
/// The quantization_config of config.json. Layers that stay as they are have to be named. Throws Error where nothing is
/// quantised and where layers need different methods.
nlohmann::ordered_json quantization_config(const FloatModel& model, const std::vector<Linear>& linears);

}  // namespace nibble::models
