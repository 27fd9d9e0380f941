// SPDX-License-Identifier: Apache-2.0
// Folders of quantised safetensors, read back by the loader of compressed-tensors.
#include "models/quantize_folder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>

#include "models/generate.h"
#include "models/io/checkpoint.h"
#include "models/io/coded_matrix.h"
#include "models/io/safetensors_writer.h"
#include "models/quantize_file.h"
#include "models/weight_part.h"
#include "tensor/check.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/load_model.h"

namespace nibble::models {
namespace {

namespace fs = std::filesystem;
const std::string golden = NIBBLE_TEST_DATA "/checkpoints/packed4";
const std::string module = "model.layers.0.mlp.gate_proj.weight";

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
      outputs.push_back({tensor.name, "F32", tensor.shape, static_cast<uint64_t>(tensor.shape.elements()) * 4, outputs.size()});
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
  const std::pair<const char*, double> kinds[] = {{"int4:g32:sym:f16", 0.16},   {"int4:g32:asym:bf16", 0.16}, {"int8:row:sym:f32", 0.012},  {"int3:g32:asym:f16", 0.36},
                                                  {"int8:g32:asym:bf16", 0.012}, {"int6:row:asym:f32", 0.05},  {"fp8_e4m3:row:bf16", 0.04}, {"fp8_e4m3:g32:f32", 0.04}};
  for (const auto& [spec, bound] : kinds) {
    fs::remove_all(dir / "out");
      const FolderReport report = quantize_folder(source, dir / "out", {.matrices = folder_layout(spec), .rules = {}});
    EXPECT_EQ(report.kept, 1) << spec;  // the output matrix
    const Checkpoint out = Checkpoint::open(dir / "out");
    ASSERT_NE(out.tensor(module)->coded, nullptr) << spec;
    EXPECT_LT(error_of(values_of(out, module), want), bound) << spec;
    EXPECT_NEAR(std::sqrt(report.squared_error / report.squares), error_of(values_of(out, module), want), bound) << spec;
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
  const FolderOptions options{.matrices = folder_layout("int4:g32"), .rules = {{"*.down_proj", std::nullopt}, {"*.v_proj", folder_layout("int8:row")}, {"lm_head", folder_layout("fp8_e4m3")}},
                              .search = false, .threads = 1, .split_bytes = 20000};
  const FolderReport report = quantize_folder(source, dir / "out", options);
  EXPECT_GT(report.kept, 0);
  EXPECT_TRUE(fs::exists(dir / "out/model.safetensors.index.json"));
  EXPECT_FALSE(fs::exists(dir / "out/model.safetensors"));
  const Checkpoint out = Checkpoint::open(dir / "out");
  EXPECT_EQ(out.tensor("model.layers.0.mlp.down_proj.weight")->coded, nullptr);
  EXPECT_EQ(out.tensor("model.layers.0.self_attn.v_proj.weight")->coded->bits, 8);
  EXPECT_EQ(out.tensor("lm_head.weight")->coded->codebook, books::e4m3);
  EXPECT_EQ(logits_of(dir / "out").size(), logits_of(source).size());
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
  refused(NIBBLE_TEST_DATA "/models/mistral.gguf", dir / "out", "expected a Hugging Face folder");
  fs::create_directory(dir / "full");
  test::write_file(dir / "full/file", "x");
  refused(source, dir / "full", "new or empty");
  EXPECT_FALSE(fs::exists(dir / "out"));
  EXPECT_EQ(std::distance(fs::directory_iterator(dir / "."), fs::directory_iterator()), 2);  // "source" and "full"
  for (const char* name : {"nf4", "int1", "q4_k", "int4:g48"}) EXPECT_THROW(folder_layout(name), Error) << name;
}

}  // namespace
}  // namespace nibble::models
