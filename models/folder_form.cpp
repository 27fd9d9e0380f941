// SPDX-License-Identifier: Apache-2.0
#include "models/folder_form.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "quant/spec.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

using nlohmann::ordered_json;

constexpr const char* absmax_ending = ".weight.absmax";
constexpr const char* map_ending = ".weight.quant_map";

bool is_float(const QuantLayout& layout) { return layout.codebook == books::e4m3; }
std::string bitsandbytes_name(const QuantLayout& layout) { return layout.codebook == books::fp4_float ? "fp4" : "nf4"; }
std::string state_ending(const QuantLayout& layout) {
  return ".weight.quant_state.bitsandbytes__" + bitsandbytes_name(layout);
}

/// What bitsandbytes needs to know of a matrix, as JSON.
std::string state_of(const Linear& linear) {
  const FloatTensor& weight = *linear.weight;
  const ordered_json state = {{"quant_type", bitsandbytes_name(*linear.layout)},
                              {"blocksize", int{linear.layout->group}},
                              {"dtype", torch_name(float_type(weight.type_name()).value_or(DType::f32))},
                              {"shape", {weight.shape[0], weight.shape[1]}}};
  return state.dump();
}

ordered_json bitsandbytes_config(const QuantLayout& layout, const std::set<std::string>& kept) {
  return {{"quant_method", "bitsandbytes"},
          {"load_in_4bit", true},
          {"load_in_8bit", false},
          {"bnb_4bit_quant_type", bitsandbytes_name(layout)},
          {"bnb_4bit_use_double_quant", false},
          {"bnb_4bit_compute_dtype", "bfloat16"},
          {"bnb_4bit_quant_storage", "uint8"},
          {"llm_int8_skip_modules", kept}};
}

/// Codes as a stream of bits in 32-bit words, lowest first; `stride` words from one to the next.
void put_code(uint32_t* words, int64_t stride, int bits, int64_t index, unsigned code) {
  const int64_t bit = index * bits;
  const int shift = static_cast<int>(bit % 32);
  words[bit / 32 * stride] |= code << shift;
  if (shift + bits > 32) words[(bit / 32 + 1) * stride] |= code >> (32 - shift);
}

ordered_json scheme_of(const QuantLayout& layout, std::vector<std::string> targets) {
  ordered_json weights = {{"num_bits", int{layout.bits}},
                          {"type", is_float(layout) ? "float" : "int"},
                          {"symmetric", layout.zero_point == ZeroPoint::symmetric},
                          {"strategy", layout.group ? "group" : "channel"},
                          {"group_size", nullptr},
                          {"dynamic", false}};
  if (layout.group) weights["group_size"] = int{layout.group};
  return {{"targets", std::move(targets)},
          {"weights", weights},
          {"input_activations", nullptr},
          {"output_activations", nullptr},
          {"format", is_float(layout) ? "float-quantized" : "pack-quantized"}};
}

}  // namespace

bool in_bitsandbytes(const QuantLayout& layout) {
  return layout.codebook == books::nf4_float || layout.codebook == books::fp4_float;
}

std::string upper_type_name(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
  return out;
}

std::vector<SafetensorsOutput> outputs_of(const Linear& linear, size_t module) {
  const QuantLayout& layout = *linear.layout;
  const int64_t n = linear.weight->shape[0], k = linear.weight->shape[1], groups = k / group_of(layout, k),
                bits = layout.bits;
  const std::string name = linear.name();
  std::vector<SafetensorsOutput> out;
  const auto add = [&](const char* suffix, std::string type, const Shape& shape, size_t element) {
    out.push_back({name + suffix, std::move(type), shape, static_cast<uint64_t>(shape.elements()) * element, module});
  };
  if (in_bitsandbytes(layout)) {
    add(".weight", "U8", {n * k / 2, 1}, 1);
    add(absmax_ending, "F32", {n * groups}, 4);
    add(map_ending, "F32", {16}, 4);
    add(state_ending(layout).c_str(), "U8", {static_cast<int64_t>(state_of(linear).size())}, 1);
    return out;
  }
  if (is_float(layout)) {
    add(".weight", "F8_E4M3", {n, k}, 1);
  } else {
    add(".weight_shape", "I64", {2}, 8);
    add(".weight_packed", "I32", {n, (k * bits + 31) / 32}, 4);
    if (layout.zero_point == ZeroPoint::integer) add(".weight_zero_point", "I32", {(n * bits + 31) / 32, groups}, 4);
  }
  add(".weight_scale", upper_type_name(nibble::name(layout.scale)), {n, groups}, element_bytes(layout.scale));
  return out;
}

std::vector<std::vector<std::byte>> bytes_of(const Linear& linear, const std::vector<SafetensorsOutput>& outputs,
                                             const FolderCodes& all) {
  const QuantLayout& layout = *linear.layout;
  const int64_t n = linear.weight->shape[0], k = linear.weight->shape[1], groups = k / group_of(layout, k);
  std::vector<std::vector<std::byte>> bytes;
  for (const SafetensorsOutput& output : outputs) bytes.emplace_back(output.bytes);
  for (size_t o = 0; o < outputs.size(); ++o) {
    const std::string_view name = outputs[o].name;
    std::byte* out = bytes[o].data();
    auto* words = reinterpret_cast<uint32_t*>(out);
    if (name.ends_with(map_ending)) {
      std::memcpy(out, float_book(layout.codebook)->values, bytes[o].size());
    } else if (name.ends_with(state_ending(layout))) {
      std::memcpy(out, state_of(linear).data(), bytes[o].size());
    } else if (name.ends_with(".weight") && in_bitsandbytes(layout)) {
      for (size_t i = 0; i < bytes[o].size(); ++i)
        out[i] = static_cast<std::byte>(all.codes[2 * i] << 4 | all.codes[2 * i + 1]);
    } else if (name.ends_with(".weight")) {
      std::memcpy(out, all.codes.data(), all.codes.size());
    } else if (name.ends_with("_shape")) {
      const int64_t sizes[] = {n, k};
      std::memcpy(out, sizes, sizeof sizes);
    } else if (name.ends_with("_packed")) {
      const int64_t per_row = outputs[o].shape[1];
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < k; ++j)
          put_code(words + i * per_row, 1, layout.bits, j, all.codes[static_cast<size_t>(i * k + j)]);
    } else if (name.ends_with("_zero_point")) {
      for (int64_t i = 0; i < n; ++i)
        for (int64_t g = 0; g < groups; ++g)
          put_code(words + g, groups, layout.bits, i,
                   static_cast<unsigned>(all.offsets[static_cast<size_t>(i * groups + g)]));
    } else if (layout.scale == DType::f32) {
      std::memcpy(out, all.scales.data(), bytes[o].size());
    } else {
      for (size_t i = 0; i < all.scales.size(); ++i) {
        const uint16_t half = layout.scale == DType::f16 ? f32_to_f16(all.scales[i]) : f32_to_bf16(all.scales[i]);
        std::memcpy(out + 2 * i, &half, 2);
      }
    }
  }
  return bytes;
}

ordered_json quantization_config(const FloatModel& model, const std::vector<Linear>& linears) {
  std::vector<std::pair<QuantLayout, std::vector<std::string>>> kinds;
  std::set<std::string> ignored = {"lm_head"};
  for (const FloatTensor& tensor : model.tensors)
    if (tensor.shape.rank() == 2 && tensor.name.ends_with(".weight"))
      ignored.insert(tensor.name.substr(0, tensor.name.rfind('.')));
  for (const Linear& linear : linears) {
    if (!linear.layout) continue;
    ignored.erase(linear.name());
    auto kind = std::find_if(kinds.begin(), kinds.end(), [&](const auto& one) { return one.first == *linear.layout; });
    if (kind == kinds.end()) kind = kinds.insert(kinds.end(), {*linear.layout, {}});
    kind->second.push_back(linear.name());
  }
  NIBBLE_CHECK(!kinds.empty(), model.file->path(), ": no linear layer to quantise");
  if (std::any_of(kinds.begin(), kinds.end(), [](const auto& kind) { return in_bitsandbytes(kind.first); })) {
    // a loader takes the rest from the state of each layer
    NIBBLE_CHECK(kinds.size() == 1, model.file->path(), ": layers of ", quant::spec_of(kinds[0].first), " and of ",
                 quant::spec_of(kinds[1].first),
                 ": nf4 and fp4, which bitsandbytes reads, expected all layers to have one type or to be kept");
    return bitsandbytes_config(kinds[0].first, ignored);
  }
  ordered_json config = {
      {"quant_method", "compressed-tensors"}, {"quantization_status", "compressed"}, {"ignore", ignored}};
  std::set<std::string> formats;
  for (size_t i = 0; i < kinds.size(); ++i) {
    const ordered_json scheme =
        scheme_of(kinds[i].first, kinds.size() == 1 ? std::vector<std::string>{"Linear"} : kinds[i].second);
    config["config_groups"][message("group_", i)] = scheme;
    formats.insert(scheme["format"].get<std::string>());
  }
  config["format"] = formats.size() == 1 ? *formats.begin() : "mixed-precision";
  return config;
}

}  // namespace nibble::models
