// SPDX-License-Identifier: Apache-2.0
// Broken quantised checkpoints: the folders of tests/data/checkpoints with one thing changed.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tensor/check.h"
#include "tests/support/folder_copy.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/load_model.h"

namespace nibble::models {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::Copy;

const std::string goldens = NIBBLE_TEST_DATA "/checkpoints/";
const std::string layer = "model.layers.0.";

TEST(QuantizedMalformed, Configuration) {
  Copy("gptq4")
      .config([](json& c) { c["bits"] = 5; })
      .refused({"config.json", "quantization_config.bits", "2, 3, 4 or 8", "found 5"});
  Copy("gptq4").config([](json& c) { c["bits"] = "4"; }).refused({"quantization_config.bits", "an integer"});
  Copy("gptq4").config([](json& c) { c.erase("bits"); }).refused({"quantization_config.bits", "missing"});
  Copy("gptq4").config([](json& c) { c["group_size"] = -7; }).refused({"quantization_config.group_size", "-7"});
  for (const char* name : {"gptq4", "awq-gemm", "awq-gemv"}) {
    Copy(name)
        .config([](json& c) { c["group_size"] = 0; })
        .refused({"config.json", "group_size", "expected -1", "found 0"});
    Copy(name)
        .config([](json& c) { c["group_size"] = int64_t{1} << 40; })
        .refused({"config.json", "group_size", "1099511627776"});
    // gemv fills its rows of scales up, so that fewer groups fit too
    const bool filled = std::string_view(name) == "awq-gemv";
    for (const int64_t group : {int64_t{-1}, int64_t{128}, (int64_t{1} << 31) - 1})
      Copy(name).config([&](json& c) { c["group_size"] = group; })
          .refused({"model.safetensors", filled ? "expected scales of 1 groups" : "expected shape", "found"});
    Copy(name).config([](json& c) { c["group_size"] = 32.5; }).refused({"config.json", "group_size", "an integer"});
  }
  for (const int bits : {0, -4, 33})
    Copy("gptq4")
        .config([&](json& c) { c["bits"] = bits; })
        .refused({"quantization_config.bits", std::to_string(bits)});
  Copy("gptq4").config([](json& c) { c = 7; }).refused({"quantization_config"});
  Copy("gptq4").config([](json& c) { c["pack_dtype"] = "int16"; }).refused({"pack_dtype", "expected int32", "int16"});
  Copy("gptq4")
      .config([](json& c) { c["checkpoint_format"] = "marlin"; })
      .refused({"checkpoint_format", "gptq_v2", "marlin"});
  Copy("gptq4")
      .config([](json& c) { c["quant_method"] = "aqlm"; })
      .refused({"config.json", "quant_method", "gptq", "awq", "'aqlm'"});
  Copy("awq-gemm")
      .config([](json& c) { c["bits"] = 3; })
      .refused({"quantization_config.bits", "expected 4", "found 3"});
  Copy("awq-gemm").config([](json& c) { c["version"] = "marlin"; }).refused({"version", "gemv", "marlin"});
}

TEST(QuantizedMalformed, PartsMissingOrOfAnotherShape) {
  const std::string q = layer + "self_attn.q_proj";
  for (const char* name : {"gptq4", "awq-gemm", "awq-gemv"})
    for (const char* part : {".qzeros", ".scales"})
      Copy(name).rename(q + part, "spare").refused({"/model", q + part, "no tensor"});
  Copy("gptq4").rename(q + ".qweight", "spare").refused({q + ".weight", "no tensor"});
  Copy("gptq4").rename(q + ".qweight", q + ".weight").refused({q});
  Copy("gptq4")
      .weights([&](json& h, std::string&) { h[q + ".qweight"]["dtype"] = "F32"; })
      .refused({q + ".qweight", "expected type i32", "found f32"});
  Copy("gptq4")
      .weights([&](json& h, std::string&) {
        h[q + ".qweight"]["shape"] = {4, 128};
      })
      .refused({q + ".qweight", "(-1, 64)", "(4, 128)"});
  Copy("gptq4")
      .weights([&](json& h, std::string&) {
        h[q + ".qzeros"]["shape"] = {1, 16};
      })
      .refused({q + ".qzeros", "(2, 8)", "(1, 16)"});
  Copy("gptq4")
      .weights([&](json& h, std::string&) {
        h[q + ".g_idx"]["shape"] = {2, 32};
      })
      .refused({q + ".g_idx", "(64)", "(2, 32)"});
  Copy("awq-gemm")
      .weights([&](json& h, std::string&) {
        h[q + ".scales"]["shape"] = {64, 2};
      })
      .refused({q + ".scales", "(2, 64)", "(64, 2)"});
  Copy("awq-gemv")
      .weights([&](json& h, std::string&) {
        h[q + ".qzeros"]["shape"] = {32, 4};
      })
      .refused({q + ".qzeros", "(64, -1)", "(32, 4)"});
  Copy("gptq4")
      .config([](json& c) { c["group_size"] = 16; })
      .refused({".scales", "expected shape (8, 64)", "found (4, 64)"});
}

TEST(QuantizedMalformed, OtherSchemes) {
  const std::string q = layer + "self_attn.q_proj";
  Copy("auto-round-gptq")
      .config([](json& c) { c["packing_format"] = "auto_round:llm_compressor"; })
      .refused({"packing_format", "auto_round:auto_awq", "llm_compressor"});
  Copy("packed4").config([](json& c) { c.erase("config_groups"); }).refused({"config_groups", "an object"});
  Copy("packed4")
      .config([](json& c) { c["config_groups"]["group_0"]["weights"]["num_bits"] = 9; })
      .refused({"num_bits", "between 1 and 8", "9"});
  Copy("packed4")
      .config([](json& c) { c["config_groups"]["group_0"]["weights"]["num_bits"] = 5; })
      .refused({".weight_packed", "width of a config group"});
  Copy("packed4")
      .config([](json& c) { c["sparsity_config"]["format"] = "sparse-24-bitmask"; })
      .refused({"sparsity_config.format", "expected dense"});
  Copy("packed4").rename(q + ".weight_scale", "spare").refused({q + ".weight_scale", "no tensor"});
  Copy("packed4").rename(q + ".weight_shape", "spare").refused({q + ".weight_shape", "no tensor"});
  Copy("packed4")
      .weights([&](json& h, std::string&) {
        h[q + ".weight_scale"]["shape"] = {2, 64};
      })
      .refused({q + ".weight_scale", "(64, 64)", "(2, 64)"});
  Copy("packed4-zeros")
      .weights([&](json& h, std::string&) {
        h[q + ".weight_zero_point"]["shape"] = {4, 4};
      })
      .refused({q + ".weight_zero_point", "(8, 2)", "(4, 4)"});
  Copy("fp8-block")
      .config([](json& c) { c["weight_block_size"] = {128}; })
      .refused({"weight_block_size", "two sizes", "[128]"});
  Copy("fp8-block")
      .config([](json& c) {
        c["weight_block_size"] = {64, 64};
      })
      .refused({".weight_scale_inv", "expected shape (1, 2)", "found (2, 3)"});
  Copy("fp8-tensor").rename(q + ".weight_scale_inv", "spare").refused({q + ".weight_scale", "no tensor"});
  Copy("nf4").rename(q + ".weight.absmax", "spare").refused({q + ".weight.absmax", "no tensor"});
  Copy("nf4")
      .weights([&](json& h, std::string&) {
        h[q + ".weight.quant_map"]["shape"] = {4, 4};
      })
      .refused({q + ".weight.quant_map", "(16)", "(4, 4)"});
  Copy("nf4").weights([&](json& h, std::string& data) {
    data[h[q + ".weight.quant_state.bitsandbytes__nf4"]["data_offsets"][0].get<size_t>()] = '[';
  }).refused({q + ".weight.quant_state.bitsandbytes__nf4", "not valid JSON"});
  Copy("bnb-int8").rename(q + ".SCB", "spare").refused({q + ".SCB", "no tensor"});
}

TEST(QuantizedMalformed, GroupsOutsideOfTheScales) {
  const std::string name = layer + "self_attn.q_proj.g_idx";
  for (const int32_t group : {-1, 2, 1 << 30})
    Copy("gptq4").weights([&](json& header, std::string& data) {
      std::memcpy(data.data() + header[name]["data_offsets"][0].get<size_t>() + 4 * 5, &group, 4);
    }).refused({name, "column 5", "from 0 to 1", message("found ", group)});
}

TEST(QuantizedMalformed, GptqTensors) {
  const std::string q = layer + "self_attn.q_proj", down = layer + "mlp.down_proj", file = "model.safetensors: tensor ";
  for (const char* name : {"gptq2", "gptq3", "gptq4", "gptq8"}) {
    const size_t bits = static_cast<size_t>(name[4] - '0');
    Copy(name).cut(q + ".qweight", 64 * bits / 32 - 1).refused({file + q, "expected", "found"});
    Copy(name).cut(q + ".qweight", 0).refused({file + q + ".qweight", "expected shape (-1, 64)", "found (0, 64)"});
    Copy(name).cut(down + ".scales", 1).refused({file + down, "expected shape", "found"});
    Copy(name).cut(down + ".qzeros", 1).refused({file + down + ".qzeros", "expected shape", "found (1, "});
    Copy(name).cut(q + ".g_idx", 63).refused({file + q + ".g_idx", "expected shape (64)", "found (63)"});
  }
  Copy("gptq4").config([](json& c) { c["bits"] = 8; }).refused({file, "expected shape", "found"});
  Copy("gptq4")
      .tensor(q + ".scales", [](json& entry, std::string&) { entry["dtype"] = "I16"; })
      .refused({q + ".scales", "expected type f16 or bf16 or f32", "found i16"});
  Copy("gptq4")
      .tensor(q + ".qzeros", [](json& entry, std::string&) { entry["dtype"] = "F32"; })
      .refused({q + ".qzeros", "expected type i32", "found f32"});
  Copy("gptq4")
      .tensor(q + ".g_idx", [](json& entry, std::string&) { entry["dtype"] = "F32"; })
      .refused({q + ".g_idx", "expected type i32 or i64", "found f32"});
  Copy("gptq4")
      .tensor(q + ".qweight",
              [](json& entry, std::string&) {
                entry["shape"] = {2, 4, 64};
              })
      .refused({q + ".qweight", "(-1, 64)", "(2, 4, 64)"});
  // a module of the right parts in another size than the model's
  Copy("gptq4").weights([](json& h, std::string&) {
    for (const char* part : {".qweight", ".qzeros", ".scales", ".g_idx"})
      std::swap(h.at(layer + "self_attn.q_proj" + part), h.at(layer + "mlp.down_proj" + part));
  }).refused({layer, "expected", "found"});
}

TEST(QuantizedMalformed, AwqTensors) {
  const std::string q = layer + "self_attn.q_proj", file = "model.safetensors: tensor ";
  for (const char* name : {"awq-gemm", "awq-gemv"}) {
    Copy(name).cut(q + ".qweight", 33).refused({file + q, "expected shape", "found"});
    Copy(name).cut(q + ".qweight", 0).refused({file + q + ".qweight", "expected shape (-1, -1)", "found (0, 8)"});
    Copy(name).cut(q + ".qzeros", 1).refused({file + q + ".qzeros", "expected shape", "found (1, "});
    Copy(name).cut(q + ".scales", 1).refused({file + q + ".scales", "expected shape", "found (1, "});
    Copy(name)
        .tensor(q + ".qweight", [](json& entry, std::string&) { entry["dtype"] = "U32"; })
        .refused({q + ".qweight", "expected type i32", "found u32"});
    Copy(name)
        .tensor(q + ".scales",
                [](json& entry, std::string&) {
                  entry["shape"] = {entry["shape"][0].get<int>() * entry["shape"][1].get<int>()};
                })
        .refused({q + ".scales", "expected shape (-1, -1)", "found ("});
  }
  Copy("awq-gemm").config([](json& c) { c["version"] = "gemv"; }).refused({file, "expected shape", "found"});
  Copy("awq-gemv").config([](json& c) { c["version"] = "gemm"; }).refused({file, "expected shape", "found"});
}

TEST(QuantizedMalformed, CompressedTensors) {
  const std::string q = layer + "self_attn.q_proj", file = "model.safetensors: tensor ";
  Copy("packed4")
      .cut(q + ".weight_packed", 63)
      .refused({file + q + ".weight_shape", "expected 63 rows", "found (64, 64)"});
  Copy("packed4")
      .cut(q + ".weight_packed", 0)
      .refused({file + q + ".weight_packed", "expected shape (-1, -1)", "found (0, 8)"});
  Copy("packed4").cut(q + ".weight_scale", 63).refused({file + q + ".weight_scale", "(64, 64)", "(63, 2)"});
  Copy("packed4").config([](json& c) { c["config_groups"]["group_0"]["weights"]["group_size"] = 16; })
      .refused({".weight_scale", "config group of 4 bits", "found shape ("});
  Copy("packed4")
      .bytes(q + ".weight_shape", 0, test::raw(int64_t{-64}))
      .refused({q + ".weight_shape", "expected 64 rows", "-64"});
  Copy("packed4")
      .bytes(q + ".weight_shape", 8, test::raw(int64_t{48}))
      .refused({q + ".weight_packed", "rows of 48 codes", "(64, 8)"});
  Copy("packed4")
      .bytes(q + ".weight_shape", 8, test::raw(int64_t{1} << 62))
      .refused({q + ".weight_shape", "at least 32 columns"});
  Copy("packed4")
      .tensor(q + ".weight_shape", [](json& entry, std::string&) { entry["dtype"] = "F64"; })
      .refused({q + ".weight_shape", "expected type i64 or i32", "found f64"});
  Copy("packed4").cut(q + ".weight_shape", 1).refused({q + ".weight_shape", "expected shape (2)", "found (1)"});
  Copy("packed4-zeros").cut(q + ".weight_zero_point", 7).refused({q + ".weight_zero_point", "(8, 2)", "(7, 2)"});
  Copy("packed4-act-order").cut(q + ".weight_g_idx", 60).refused({q + ".weight_g_idx", "(64)", "(60)"});
  for (const int32_t group : {2, -2, INT32_MAX})
    Copy("packed4-act-order")
        .bytes(q + ".weight_g_idx", 4 * 9, test::raw(group))
        .refused({q + ".weight_g_idx", "column 9", "from 0 to 1", message("found ", group)});
  Copy("packed4-act-order")
      .bytes(q + ".weight_g_idx", 4 * 9, test::raw(int32_t{-1}))
      .refused({q + ".weight_g_idx", "column 9", "found -1"});
  Copy("int8-channel").cut(q + ".weight", 0).refused({q + ".weight", "expected shape (-1, -1)", "found (0, 64)"});
  Copy("int8-channel").cut(q + ".weight_scale", 32).refused({q + ".weight_scale", "(64, 64)", "(32, 1)"});
  Copy("int8-channel").rename(q + ".weight_scale", "spare").refused({q + ".weight_scale", "no tensor"});
  Copy("int8-zeros").cut(q + ".weight_zero_point", 32).refused({q + ".weight_zero_point", "64", "(32, 1)"});
  Copy("int8-zeros")
      .tensor(q + ".weight_zero_point", [](json& entry, std::string&) { entry["dtype"] = "U8"; })
      .refused({q + ".weight_zero_point", "expected type i8", "found u8"});
  Copy("fp8-channel").cut(q + ".weight_scale", 0).refused({q + ".weight_scale", "(64, 64)", "(0, 1)"});
}

TEST(QuantizedMalformed, Fp8Tensors) {
  const std::string q = layer + "self_attn.q_proj";
  Copy("fp8-block")
      .cut(q + ".weight_scale_inv", 1)
      .refused({q + ".weight_scale_inv", "expected shape (2, 2)", "found (1, 2)"});
  Copy("fp8-block").cut(q + ".weight", 0).refused({q + ".weight", "expected shape (-1, -1)", "found (0, 64)"});
  Copy("fp8-block")
      .tensor(q + ".weight_scale_inv", [](json& entry, std::string&) { entry["dtype"] = "I32"; })
      .refused({q + ".weight_scale_inv", "expected type f32", "found i32"});
  for (const json& size : {json(0), json(-1), json(1 << 20), json("48"), json(1.5)})
    Copy("fp8-block")
        .config([&](json& c) {
          c["weight_block_size"] = {32, size};
        })
        .refused({"config.json", "weight_block_size", "two sizes", size.dump()});
  Copy("fp8-block").config([](json& c) { c["fmt"] = "e5m2"; }).refused({"config.json", "fmt", "expected e4m3", "e5m2"});
  Copy("fp8-tensor").tensor(q + ".weight_scale_inv", [](json& entry, std::string& bytes) {
    entry["shape"] = {3};
    bytes += bytes + bytes;
  }).refused({q + ".weight_scale_inv", "(64, 64)", "(3)"});
}

TEST(QuantizedMalformed, BitsAndBytesTensors) {
  const std::string w = layer + "self_attn.q_proj.weight", state = w + ".quant_state.bitsandbytes__nf4";
  const auto refused = [&](const std::string& text, const std::vector<std::string>& mentions) {
    Copy("nf4").tensor(state, [&](json& entry, std::string& bytes) {
      bytes = text;
      entry["shape"] = {text.size()};
    }).refused(mentions);
  };
  Copy("nf4").cut(w + ".absmax", 63).refused({w + ".absmax", "expected shape (64)", "found (63)"});
  Copy("nf4").cut(w, 2047).refused({w, "expected 2048 bytes", "found 2047"});
  Copy("nf4").rename(w, "spare").refused({w, "no tensor"});
  Copy("nf4").rename(w + ".quant_map", "spare").refused({w + ".quant_map", "no tensor"});
  Copy("nf4").rename(state, "spare").refused({w});
  Copy("nf4")
      .tensor(w + ".absmax", [](json& entry, std::string&) { entry["dtype"] = "I32"; })
      .refused({w + ".absmax", "expected type f32", "found i32"});
  for (const char* text :
       {"", "{", "null", "[1]", "{\"shape\": 3}", "{\"shape\": [64]}", "{\"shape\": [64, 64, 1], \"blocksize\": 64}",
        "{\"shape\": [-64, 64], \"blocksize\": 64}", "{\"shape\": [64, 4294967296], \"blocksize\": 64}",
        "{\"shape\": [64.0, 64], \"blocksize\": 64}", "{\"shape\": [64, 64]}",
        "{\"shape\": [64, 64], \"blocksize\": 0}", "{\"shape\": [64, 64], \"blocksize\": 1e9}",
        "{\"shape\": [64, 64], \"blocksize\": 64, \"dtype\": \"int4\"}",
        "{\"shape\": [64, 64], \"blocksize\": 64, \"nested_blocksize\": 256}"})
    refused(text, {"self_attn.q_proj.weight"});
  refused("{\"shape\": [64, 128], \"blocksize\": 64}", {w, "expected 4096 bytes for (64, 128)", "found 2048"});
  refused(std::string(100000, '['), {state, "at most 65536 bytes", "100000"});
  refused(std::string(60000, '['), {state, "nesting"});
  Copy("nf4-nested").cut(w + ".nested_quant_map", 255).refused({w + ".nested_quant_map", "(256)", "(255)"});
  Copy("nf4-nested").cut(w + ".nested_absmax", 0).refused({w + ".nested_absmax", "(1)", "(0)"});
  Copy("nf4-nested").cut(w + ".absmax", 65 - 2).refused({w + ".absmax", "(64)", "(63)"});
  Copy("bnb-int8").cut(layer + "self_attn.q_proj.SCB", 63).refused({"q_proj.SCB", "(64)", "(63)"});
  Copy("bnb-int8").cut(w, 0).refused({w, "expected shape (-1, -1)", "found (0, 64)"});
}

TEST(QuantizedMalformed, HqqTensors) {
  const std::string q = layer + "self_attn.q_proj";
  for (const char* name : {"hqq3", "hqq4", "hqq4-axis0"}) {
    for (const char* part : {".scale", ".zero", ".shape", ".nbits", ".axis"})
      Copy(name).rename(q + part, "spare").refused({q + part, "no tensor"});
    Copy(name).cut(q + ".W_q", 5).refused({q + ".W_q", "expected shape", "found (5, "});
    Copy(name).cut(q + ".scale", 0).refused({q + ".scale", "found shape (0, "});
    Copy(name)
        .bytes(q + ".nbits", 0, test::raw(int32_t{5}))
        .refused({q + ".nbits", "expected 2, 3, 4 or 8", "found 5"});
    Copy(name).bytes(q + ".nbits", 0, test::raw(int32_t{-4})).refused({q + ".nbits", "expected 1 to 8", "found -4"});
    Copy(name).bytes(q + ".axis", 0, test::raw(int32_t{2})).refused({q + ".axis", "expected 0 to 1", "found 2"});
    Copy(name).bytes(q + ".shape", 0, test::raw(int64_t{0})).refused({q + ".shape", "expected two sizes", "(0, 64)"});
    Copy(name).bytes(q + ".shape", 8, test::raw(int64_t{-64})).refused({q + ".shape", "expected two sizes", "-64"});
    Copy(name).bytes(q + ".shape", 0, test::raw(int64_t{63})).refused({q, "expected", "found"});
  }
  Copy("hqq4").cut(q + ".zero", 127).refused({q + ".zero", "(128, 1)", "(127, 1)"});
  Copy("hqq4")
      .tensor(q + ".W_q", [](json& entry, std::string&) { entry["dtype"] = "I8"; })
      .refused({q + ".W_q", "expected type u8", "found i8"});
}

TEST(QuantizedMalformed, ValuesThatAreNotFinite) {
  const std::string q = layer + "self_attn.q_proj", file = "model.safetensors: tensor " + q;
  const std::string nan16 = test::raw(uint16_t{0x7e00}), inf16 = test::raw(uint16_t{0x7c00}),
                    nan_bf16 = test::raw(uint16_t{0x7fc0});
  const std::string nan32 = test::raw(std::numeric_limits<float>::quiet_NaN()),
                    inf32 = test::raw(-std::numeric_limits<float>::infinity());
  // the scale of row 3 in group 1
  Copy("gptq4")
      .bytes(q + ".scales", (64 + 3) * 2, nan16)
      .refused({file + ".qweight", "finite scales", "nan at (3, 1) of the 64 x 2"});
  Copy("gptq3")
      .bytes(q + ".scales", (64 + 3) * 2, inf16)
      .refused({file + ".qweight", "finite scales", "inf at (3, 1) of the 64 x 2"});
  Copy("gptq4-act-order")
      .bytes(q + ".scales", (64 + 3) * 2, nan16)
      .refused({file + ".qweight", "finite scales", "(3, 1)"});
  Copy("awq-gemm").bytes(q + ".scales", (64 + 3) * 2, nan16).refused({file + ".qweight", "finite scales", "(3, 1)"});
  Copy("awq-gemv").bytes(q + ".scales", 16 * 3 * 2, inf16).refused({file + ".qweight", "finite scales", "(3, 0)"});
  Copy("packed4")
      .bytes(q + ".weight_scale", (2 * 3 + 1) * 2, nan_bf16)
      .refused({file + ".weight_packed", "finite scales", "(3, 1)"});
  Copy("int8-channel")
      .bytes(q + ".weight_scale", 3 * 2, nan_bf16)
      .refused({file + ".weight", "finite scales", "(3, 0)"});
  Copy("bnb-int8").bytes(q + ".SCB", 3 * 4, inf32).refused({file + ".weight", "finite scales", "-inf at (3, 0)"});
  Copy("hqq4").bytes(q + ".scale", (2 * 3 + 1) * 2, nan16).refused({file + ".W_q", "finite scales", "(3, 1)"});
  Copy("hqq4").bytes(q + ".zero", (2 * 3 + 1) * 2, inf16).refused({file + ".W_q", "finite zero points", "(3, 1)"});
  Copy("hqq4-axis0").bytes(q + ".scale", 5 * 2, nan16).refused({file + ".W_q", "finite weights", "nan"});
  Copy("fp8-block")
      .bytes(q + ".weight_scale_inv", 4, nan32)
      .refused({file + ".weight", "expected finite", "nan at (0, "});
  Copy("fp8-block")
      .bytes(q + ".weight", 64 * 3 + 7, "\x7f")
      .refused({file + ".weight", "finite weights", "nan at (3, 7)"});
  Copy("nf4").bytes(q + ".weight.absmax", 3 * 4, inf32).refused({file + ".weight", "expected finite", "at (3, 0)"});
  Copy("nf4").bytes(q + ".weight.quant_map", 0, nan32).refused({file + ".weight", "expected finite", "nan"});
}

TEST(QuantizedMalformed, FloatsThatAreNone) {
  const std::string name = layer + "self_attn.k_proj.weight";
  Copy("fp8-tensor").bytes(name, 3, "\xff").refused({name, "(0, 3)", "nan"});
}

}  // namespace
}  // namespace nibble::models
