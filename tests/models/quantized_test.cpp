// SPDX-License-Identifier: Apache-2.0
// Quantised checkpoints (tests/data/make_checkpoint_goldens.py): their weights bit for bit, their logits.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "models/generate.h"
#include "models/io/checkpoint.h"
#include "models/io/coded_matrix.h"
#include "models/weight_part.h"
#include "tests/support/folder_copy.h"
#include "tests/support/load_model.h"
#include "tests/support/npy.h"

namespace nibble::models {
namespace {

namespace fs = std::filesystem;

const std::string goldens = NIBBLE_TEST_DATA "/checkpoints/";
const std::string layer = "model.layers.0.";

std::vector<std::string> cases() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(goldens)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

class Quantized : public testing::TestWithParam<std::string> {};

/// The matrix as the packer makes it, with the file's order of columns.
std::vector<float> packed_values(const StoredTensor& tensor) {
  const CodedMatrix& coded = *tensor.coded;
  WeightPart part{&tensor, make_slice(tensor.shape, "", 0, {}, "test")};
  const QuantFormat& format = part.exact_format();
  std::vector<std::byte> packed(format.bytes(format, coded.n, coded.k));
  pack_part(part, nullptr, format, 0, coded.n, packed.data());
  std::vector<float> values(static_cast<size_t>(coded.n * coded.k)), sorted = values;
  format.dequantize(format, packed.data(), coded.n, coded.k, 0, coded.n, values.data());
  if (coded.order.empty()) return values;
  for (int64_t i = 0; i < coded.n; ++i)
    for (int64_t j = 0; j < coded.k; ++j)
      sorted[static_cast<size_t>(i * coded.k + coded.order[static_cast<size_t>(j)])] =
          values[static_cast<size_t>(i * coded.k + j)];
  return sorted;
}

TEST_P(Quantized, WeightsAreTheReferences) {
  const Checkpoint checkpoint = Checkpoint::open(goldens + GetParam());
  const bool codes = GetParam() != "hqq4-axis0" && GetParam() != "fp8-block";  // blocks of 48 columns
  for (const char* module : {"self_attn.k_proj", "mlp.down_proj"}) {
    const StoredTensor* tensor = checkpoint.tensor(layer + module + ".weight");
    ASSERT_NE(tensor, nullptr) << module;
    ASSERT_NE(tensor->coded, nullptr) << module;
    const test::Npy<float> want = test::read_npy<float>(goldens + GetParam() + "/" + module + ".npy");
    ASSERT_EQ(tensor->shape[1], want.shape[1]);
    ASSERT_GE(tensor->shape[0], want.shape[0]);
    std::vector<float> floats(want.data.size());
    read_floats(*tensor->coded, 0, want.shape[0], floats.data());
    // floats are rounded to their type when they are packed
    if (codes && tensor->coded->codebook == 0) {
      EXPECT_EQ(floats, want.data) << module;
    }
    std::vector<float> packed = packed_values(*tensor);
    packed.resize(want.data.size());
    EXPECT_EQ(packed, want.data) << module << " in " << tensor->coded->format->name;
    EXPECT_EQ(tensor->coded->format->layout.bits != 0, codes) << module;
  }
}

TEST_P(Quantized, LogitsAreThoseOfTheDequantisedModel) {
  const std::string folder = goldens + GetParam();
  const std::vector<float> want = test::read_npy<float>(folder + "/logits.npy").data;
  const std::vector<int32_t> tokens = test::read_npy<int32_t>(folder + "/tokens.npy").data;
  Engine engine(test::load_model(folder), {.threads = 1, .context = 64, .cache = DType::f32});
  std::vector<Row> rows;
  for (size_t i = 0; i < tokens.size(); ++i) rows.push_back({tokens[i], static_cast<int32_t>(i), 0, true});
  const std::span<const float> got = engine.run(rows);
  ASSERT_EQ(got.size(), want.size());
  double apart = 0, all = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    apart += (double{got[i]} - double{want[i]}) * (double{got[i]} - double{want[i]});
    all += double{want[i]} * double{want[i]};
  }
  // int8 activations round by up to 1/254 of a group's peak, the seven matmuls' errors add up; int16 by 1/65534
  bool bytes = false;
  const Checkpoint checkpoint = Checkpoint::open(folder);
  for (const StoredTensor& tensor : checkpoint.tensors())
    bytes = bytes || (tensor.coded != nullptr && !float_weights(tensor.coded->format->layout) &&
                      tensor.coded->format->layout.bits < 7);
  EXPECT_LE(std::sqrt(apart / all), bytes ? 2e-2 : 1e-4);
}

INSTANTIATE_TEST_SUITE_P(All, Quantized, testing::ValuesIn(cases()), [](const auto& test) {
  std::string name = test.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(QuantizedModules, OrderedColumnsAreSharedByThoseThatReadTheSame) {
  const auto model = test::load_model(goldens + "gptq4-act-order");
  const Weights& weights = model->weights;
  ASSERT_NE(weights.order("q", 0), nullptr);
  EXPECT_EQ(weights.order("q", 0), weights.order("k", 0));
  EXPECT_EQ(weights.order("q", 0), weights.order("v", 0));
  EXPECT_NE(weights.order("q", 0), weights.order("down", 0));
  EXPECT_EQ(weights.order("output", -1), nullptr);
}

TEST(QuantizedModules, GroupsThatStandTogetherNeedNoOrder) {
  std::string groups;
  for (int32_t j = 0; j < 64; ++j) groups += std::string{static_cast<char>(j < 32), 0, 0, 0};
  const test::Copy copy("gptq4");
  copy.bytes(layer + "self_attn.k_proj.g_idx", 0, groups);
  const Checkpoint checkpoint = Checkpoint::open(copy.path);
  const StoredTensor& tensor = *checkpoint.tensor(layer + "self_attn.k_proj.weight");
  EXPECT_TRUE(tensor.coded->order.empty());
  EXPECT_EQ(tensor.coded->format->name, "q4i_g32");
  std::vector<float> want(static_cast<size_t>(tensor.shape.elements()));
  read_floats(*tensor.coded, 0, tensor.shape[0], want.data());
  EXPECT_EQ(packed_values(tensor), want);
  EXPECT_NE(test::read_npy<float>(goldens + "gptq4/self_attn.k_proj.npy").data, want);
}

TEST(QuantizedModules, OtherMapsAndScalesBecomeFloats) {
  const std::string k_proj = layer + "self_attn.k_proj.weight";
  const auto format = [&](const char* part, float value) {
    const test::Copy copy("nf4");
    if (part != nullptr) copy.bytes(k_proj + part, 4, std::string(reinterpret_cast<const char*>(&value), sizeof value));
    const Checkpoint checkpoint = Checkpoint::open(copy.path);
    return std::string(checkpoint.tensor(k_proj)->coded->format->name);
  };
  EXPECT_EQ(format(nullptr, 0), "nf4_float_g64_to_bf16");
  EXPECT_EQ(format(".quant_map", 0.7f), "bf16");
  EXPECT_EQ(format(".absmax", 1e-37f), "bf16");
  EXPECT_EQ(format(".absmax", 0.0f), "nf4_float_g64_to_bf16");
}

}  // namespace
}  // namespace nibble::models
