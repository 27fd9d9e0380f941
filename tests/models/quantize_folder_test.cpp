// SPDX-License-Identifier: Apache-2.0
// Folders of quantised safetensors, read back by the loaders of compressed-tensors and bitsandbytes.
#include "models/quantize_folder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <span>

#include "models/generate.h"
#include "models/imatrix.h"
#include "models/io/checkpoint.h"
#include "models/io/coded_matrix.h"
#include "models/io/safetensors_writer.h"
#include "models/quantize_file.h"
#include "models/weight_part.h"
#include "tensor/check.h"
#include "tensor/dtype.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/load_model.h"

namespace nibble::models {
namespace {

namespace fs = std::filesystem;
const std::string golden = NIBBLE_TEST_DATA "/checkpoints/packed4";
const std::string module = "model.layers.0.mlp.gate_proj.weight";
constexpr int layers = 1;

std::vector<float> values_of(const Checkpoint& checkpoint, const std::string& name) {
  const StoredTensor& tensor = *checkpoint.tensor(name);
  std::vector<float> values(static_cast<size_t>(tensor.shape.elements()));
  WeightPart part{&tensor, make_slice(tensor.shape, "", 0, {}, "test")};
  read_rows(part, checkpoint.bytes(tensor).data(), 0, tensor.shape[0], values.data());
  return values;
}

/// The golden model as floats.
class QuantizeFolder : public testing::Test {
 protected:
  QuantizeFolder() {
    fs::create_directory(source);
    auto config = nlohmann::json::parse(test::read_file(golden + "/config.json"));
    config.erase("quantization_config");
    test::write_file(source + "/config.json", config.dump());
    test::write_file(source + "/generation_config.json", "{}");
    const Checkpoint checkpoint = Checkpoint::open(golden);
    std::vector<SafetensorsOutput> outputs;
    for (const StoredTensor& tensor : checkpoint.tensors())
      outputs.push_back(
          {tensor.name, "F32", tensor.shape, static_cast<uint64_t>(tensor.shape.elements()) * 4, outputs.size()});
    SafetensorsWriter writer(source, outputs, 0);
    for (size_t i = 0; i < outputs.size(); ++i) {
      const StoredTensor& tensor = checkpoint.tensors()[i];
      std::vector<float> values(outputs[i].bytes / 4);
      if (tensor.coded != nullptr) read_floats(*tensor.coded, 0, tensor.shape[0], values.data());
      else to_floats(tensor, checkpoint.bytes(tensor).data(), static_cast<int64_t>(values.size()), values.data());
      writer.write(i, std::as_bytes(std::span(values)));
    }
    writer.finish();
  }

  test::TempDir dir;
  const std::string source = dir / "source";
};

double error_of(const std::vector<float>& got, const std::vector<float>& want) {
  double apart = 0, all = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    apart += (double{got[i]} - want[i]) * (double{got[i]} - want[i]);
    all += double{want[i]} * want[i];
  }
  return std::sqrt(apart / all);
}

std::vector<float> logits_of(const std::string& path) {
  Engine engine(test::load_model(path), {.threads = 1, .context = 32, .cache = DType::f32});
  std::vector<Row> rows;
  for (int32_t i = 0; i < 12; ++i) rows.push_back({(i * 7 + 3) % 40, i, 0, true});
  const auto logits = engine.run(rows);
  return {logits.begin(), logits.end()};
}

TEST_F(QuantizeFolder, IsReadBackWithinHalfAStep) {
  const Checkpoint from = Checkpoint::open(source);
  const std::vector<float> want = values_of(from, module);
  // a step is 2 / 2^bits of a group's peak, its mean error a third of half of it; E4M3 rounds to 4 bits
  const std::pair<const char*, double> kinds[] = {{"int4:g32:sym:f16", 0.16},
                                                  {"int4:g32:asym:bf16", 0.16},
                                                  {"int8:row:sym:f32", 0.012},
                                                  {"int3:g32:asym:f16", 0.36},
                                                  {"int8:g32:asym:bf16", 0.012},
                                                  {"int6:row:asym:f32", 0.05},
                                                  {"fp8_e4m3:row:bf16", 0.04},
                                                  {"fp8_e4m3:g32:f32", 0.04},
                                                  // NF4's steps are at most 0.3 of the peak, FP4's a third
                                                  {"nf4:g32", 0.16},
                                                  {"fp4", 0.2},
                                                  {"int1:g32:sym:f16", 1},
                                                  {"int1:row:asym:f32", 1}};
  for (const auto& [spec, bound] : kinds) {
    fs::remove_all(dir / "out");
    const FolderReport report = quantize_folder(source, dir / "out", {.matrices = folder_layout(spec), .rules = {}});
    EXPECT_EQ(report.floats, (std::map<std::string, int>{{"f32", 2}})) << spec << ": embedding and output matrix";
    const Checkpoint out = Checkpoint::open(dir / "out");
    ASSERT_NE(out.tensor(module)->coded, nullptr) << spec;
    EXPECT_LT(error_of(values_of(out, module), want), bound) << spec;
    EXPECT_NEAR(std::sqrt(report.squared_error / report.squares), error_of(values_of(out, module), want), bound)
        << spec;
    const FolderReport plan = plan_folder(source, {.matrices = folder_layout(spec), .rules = {}});
    EXPECT_EQ(plan.quantised, report.quantised) << spec;
    uint64_t bytes = 0;
    for (const FolderTensor& t : plan.tensors) bytes += t.bytes_out;
    EXPECT_EQ(bytes, plan.bytes_out) << spec;
    EXPECT_TRUE(report.bytes_out > bytes && report.bytes_out < bytes + 8192) << spec << ": all but the header";
    EXPECT_EQ(values_of(out, "model.embed_tokens.weight"), values_of(from, "model.embed_tokens.weight"));
    EXPECT_EQ(logits_of(dir / "out").size(), logits_of(source).size()) << spec;
  }
}

TEST_F(QuantizeFolder, GivesTheLogitsOfAGgufFileOfTheSameCodes) {
  quantize_folder(source, dir / "out", {.matrices = folder_layout("int4:g32:sym:f16"), .rules = {}});
  QuantizeOptions options;
  options.matrices = &find_quantize_type("int4:g32:sym:f16");
  quantize_file(source, dir / "model.gguf", options);
  const std::vector<float> got = logits_of(dir / "out"), want = logits_of(dir / "model.gguf");
  EXPECT_LT(error_of(got, want), 1e-6);
}

TEST_F(QuantizeFolder, SplitsAndMixesTypes) {
  const FolderOptions options{.matrices = folder_layout("int4:g32"),
                              .rules = {{"*.down_proj", std::nullopt},
                                        {"*.v_proj", folder_layout("int8:row")},
                                        {"lm_head", folder_layout("fp8_e4m3")}},
                              .search = false,
                              .threads = 1,
                              .split_bytes = 20000};
  const FolderReport report = quantize_folder(source, dir / "out", options);
  EXPECT_EQ(report.floats, (std::map<std::string, int>{{"f32", 1 + layers}})) << "embedding and down_proj";
  EXPECT_TRUE(fs::exists(dir / "out/model.safetensors.index.json"));
  EXPECT_FALSE(fs::exists(dir / "out/model.safetensors"));
  const Checkpoint out = Checkpoint::open(dir / "out");
  EXPECT_EQ(out.tensor("model.layers.0.mlp.down_proj.weight")->coded, nullptr);
  EXPECT_EQ(out.tensor("model.layers.0.self_attn.v_proj.weight")->coded->bits, 8);
  EXPECT_EQ(out.tensor("lm_head.weight")->coded->codebook, books::e4m3);
  EXPECT_EQ(logits_of(dir / "out").size(), logits_of(source).size());
}

TEST_F(QuantizeFolder, WritesWhatItKeepsAsTheTypeAskedFor) {
  auto config = nlohmann::json::parse(test::read_file(source + "/config.json"));
  config["dtype"] = "float32";
  test::write_file(source + "/config.json", config.dump());
  const std::string down = "model.layers.0.mlp.down_proj.weight", embedding = "model.embed_tokens.weight";
  FolderOptions options{.matrices = folder_layout("int4:g32"), .rules = {{"*.down_proj", std::nullopt}}};
  quantize_folder(source, dir / "plain", options);
  EXPECT_EQ(nlohmann::json::parse(test::read_file(dir / "plain/config.json"))["dtype"], "float32");
  options.rules.emplace_back("lm_head", folder_layout("f16"));
  options.rules.emplace_back("*.v_proj", folder_layout("f32"));
  options.kept = DType::bf16;
  const FolderReport report = quantize_folder(source, dir / "out", options), plan = plan_folder(source, options);
  EXPECT_EQ(report.floats, (std::map<std::string, int>{{"bf16", 1 + layers}, {"f16", 1}, {"f32", layers}}));
  EXPECT_EQ(plan.floats, report.floats);
  EXPECT_EQ(nlohmann::json::parse(test::read_file(dir / "out/config.json"))["dtype"], "bfloat16");
  const Checkpoint from = Checkpoint::open(source), plain = Checkpoint::open(dir / "plain"),
                   out = Checkpoint::open(dir / "out");
  for (const std::string& name : {embedding, down}) {
    std::vector<float> want = values_of(from, name);
    for (float& value : want) value = bf16_to_f32(f32_to_bf16(value));
    EXPECT_EQ(out.tensor(name)->type_name(), "bf16") << name;
    EXPECT_EQ(values_of(out, name), want) << name;
  }
  EXPECT_EQ(out.tensor("lm_head.weight")->type_name(), "f16");
  EXPECT_EQ(values_of(out, "model.layers.0.self_attn.v_proj.weight"),
            values_of(from, "model.layers.0.self_attn.v_proj.weight"));
  EXPECT_EQ(out.tensor("model.norm.weight")->type_name(), "f32") << "vectors stay";
  EXPECT_EQ(values_of(out, module), values_of(plain, module)) << "what is quantised does not change";
  uint64_t bytes = 0;
  for (const FolderTensor& t : plan.tensors) bytes += t.bytes_out;
  EXPECT_TRUE(report.bytes_out > bytes && report.bytes_out < bytes + 8192) << "all but the header";
  options.matrices = folder_layout("bf16");
  EXPECT_THROW(plan_folder(source, options), Error);
}

TEST_F(QuantizeFolder, WritesWhatBitsandbytesReads) {
  const FolderOptions options{.matrices = folder_layout("nf4:g32"), .rules = {{"*.down_proj", std::nullopt}}};
  quantize_folder(source, dir / "out", options);
  const Checkpoint out = Checkpoint::open(dir / "out");
  const CodedMatrix& matrix = *out.tensor(module)->coded;
  EXPECT_EQ(matrix.codebook, books::nf4_float) << "its codes are kept";
  EXPECT_EQ(matrix.group, 32);
  EXPECT_EQ(out.tensor("model.layers.0.mlp.down_proj.weight")->coded, nullptr);
  const auto config = nlohmann::json::parse(test::read_file(dir / "out/config.json"))["quantization_config"];
  EXPECT_EQ(config["quant_method"], "bitsandbytes");
  EXPECT_EQ(config["bnb_4bit_quant_type"], "nf4");
  const auto kept = config["llm_int8_skip_modules"];
  for (const char* name : {"lm_head", "model.layers.0.mlp.down_proj"})
    EXPECT_NE(std::find(kept.begin(), kept.end(), name), kept.end()) << name;
  EXPECT_EQ(std::find(kept.begin(), kept.end(), "model.layers.0.mlp.gate_proj"), kept.end());
  try {
    quantize_folder(source, dir / "mixed",
                    {.matrices = folder_layout("nf4"), .rules = {{"*.v_proj", folder_layout("int8:row")}}});
    ADD_FAILURE() << "a folder has one quant_method";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("expected all layers to have one type"), std::string::npos)
        << error.what();
  }
}

/// Letters, each a token.
void write_tokenizer(const std::string& folder) {
  nlohmann::json vocab;
  for (int i = 0; i < 40; ++i) vocab[std::string(1, static_cast<char>(i < 26 ? 'a' + i : 'A' + i - 26))] = i;
  const nlohmann::json none;
  const nlohmann::json model = {
      {"type", "BPE"}, {"unk_token", none}, {"vocab", vocab}, {"merges", nlohmann::json::array()}};
  const nlohmann::json tokenizer = {{"version", "1.0"},       {"added_tokens", nlohmann::json::array()},
                                    {"normalizer", none},     {"pre_tokenizer", none},
                                    {"post_processor", none}, {"decoder", none},
                                    {"model", model}};
  test::write_file(folder + "/tokenizer.json", tokenizer.dump());
}

/// The mean square of the error of W x over the inputs x that the statistics are of: with their moments (U' U)^-1 it is
/// |y|² where U' y is the error of a row.
double product_error(const std::vector<float>& got, const std::vector<float>& want,
                     const quant::InputStatistics& inputs) {
  const size_t k = inputs.squares.size();
  double sum = 0;
  std::vector<double> y(k);
  for (size_t row = 0; row < got.size(); row += k)
    for (size_t i = 0; i < k; ++i) {
      const size_t at = row + static_cast<size_t>(inputs.order[i]);
      y[i] = double{got[at]} - want[at];
      for (size_t p = 0; p < i; ++p) y[i] -= double{inputs.feedback[p * k + i]} * y[p];
      y[i] /= double{inputs.feedback[i * k + i]};
      sum += y[i] * y[i];
    }
  return sum;
}

TEST_F(QuantizeFolder, CalibratesOnAText) {
  write_tokenizer(source);
  std::string text;
  for (int i = 0; i < 400; ++i) text += static_cast<char>('a' + i * i % 23);
  const CalibrateOptions calibrate{.threads = 1, .context = 32, .chunks = 8, .feedback_inputs = 4096};
  const auto known = calibrate_on_text(source, text, calibrate, {}).calibration;
  const quant::InputStatistics& inputs = *known.find("blk.0.gate.weight")->second;
  ASSERT_FALSE(inputs.feedback.empty());
  const std::vector<float> want = values_of(Checkpoint::open(source), module);
  for (const char* spec : {"int3:g32:asym:bf16", "int3:row", "nf4:g32", "fp8_e4m3"}) {
    for (const char* name : {"plain", "one", "two"}) {
      fs::remove_all(dir / name);
      FolderOptions options{.matrices = folder_layout(spec), .rules = {}};
      options.threads = std::string_view(name) == "two" ? 2 : 1;
      if (std::string_view(name) != "plain") options.calibration = text, options.calibrate = calibrate;
      quantize_folder(source, dir / name, options);
    }
    EXPECT_EQ(test::read_file(dir / "one/model.safetensors"), test::read_file(dir / "two/model.safetensors"))
        << spec << ": whatever the threads";
    const double plain = product_error(values_of(Checkpoint::open(dir / "plain"), module), want, inputs);
    EXPECT_LT(product_error(values_of(Checkpoint::open(dir / "one"), module), want, inputs), 0.8 * plain) << spec;
  }
  EXPECT_TRUE(fs::exists(dir / "one/tokenizer.json"));
}

TEST_F(QuantizeFolder, SparesTheWeightsThatAnImportanceMatrixNames) {
  Imatrix imatrix;
  std::vector<float>& squares = imatrix.squares["blk.0.ffn_gate.weight"];
  for (int i = 0; i < 64; ++i) squares.push_back(i % 8 == 0 ? 1000.0f : 1.0f);
  imatrix.chunks = imatrix.chunk_tokens = 1;
  imatrix.write(dir / "imatrix");
  FolderOptions options{.matrices = folder_layout("int3:g32:asym:f16"), .rules = {}};
  quantize_folder(source, dir / "plain", options);
  options.importance = dir / "imatrix";
  quantize_folder(source, dir / "out", options);
  const std::vector<float> want = values_of(Checkpoint::open(source), module);
  const auto weighted = [&](const std::string& path) {
    const std::vector<float> got = values_of(Checkpoint::open(path), module);
    double sum = 0;
    for (size_t i = 0; i < got.size(); ++i)
      sum += squares[i % 64] * (double{got[i]} - want[i]) * (double{got[i]} - want[i]);
    return sum;
  };
  EXPECT_LT(weighted(dir / "out"), 0.8 * weighted(dir / "plain"));
  const std::string other = "model.layers.0.mlp.up_proj.weight";
  EXPECT_EQ(values_of(Checkpoint::open(dir / "out"), other), values_of(Checkpoint::open(dir / "plain"), other))
      << "of which it says nothing";
  squares.push_back(1);
  imatrix.write(dir / "imatrix");
  EXPECT_THROW(quantize_folder(source, dir / "bad", options), Error);
  options.calibration = "abc";
  EXPECT_THROW(quantize_folder(source, dir / "bad", options), Error);
  EXPECT_FALSE(fs::exists(dir / "bad"));
}

TEST_F(QuantizeFolder, LeavesNothingBehindWhenItFails) {
  const auto refused = [&](const std::string& from, const std::string& to, const std::string& part) {
    try {
      quantize_folder(from, to, {.matrices = folder_layout("int4"), .rules = {}});
      ADD_FAILURE() << "no error: " << part;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  refused(golden, dir / "out", "not quantised");
  refused(NIBBLE_TEST_DATA "/models/bloom.gguf", dir / "out", "can't be written as a folder");
  fs::create_directory(dir / "full");
  test::write_file(dir / "full/file", "x");
  refused(source, dir / "full", "new or empty");
  EXPECT_FALSE(fs::exists(dir / "out"));
  EXPECT_EQ(std::distance(fs::directory_iterator(dir / "."), fs::directory_iterator()), 2);  // "source" and "full"
  for (const char* name :
       {"q4_k", "int4:g48", "int4:fp8", "q4s_g64_fp8", "e4m3_g64_fp8", "fp8_e4m3:fp8", "fp8_e5m2", "nf4:row",
        "nf4:g16", "nf4:bf16", "fp4:g64:f16"})
    EXPECT_THROW(folder_layout(name), Error) << name;
}

}  // namespace
}  // namespace nibble::models
