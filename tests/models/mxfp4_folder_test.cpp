// SPDX-License-Identifier: Apache-2.0
// gpt-oss folders as they are published: experts in MXFP4 blocks with their scales in another tensor.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "models/decoder.h"
#include "quant/format.h"
#include "tensor/check.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/load_model.h"
#include "tests/support/npy.h"

namespace nibble::models {
namespace {

const std::string folder = NIBBLE_TEST_DATA "/folders/gptoss-mxfp4";

/// One expert's weights, (n, k).
std::vector<float> values(const Model& model, std::string_view name, int expert) {
  const Tensor tensor = model.weights.expert(name, 1, expert);
  const QuantFormat& format = *tensor.desc.format;
  std::vector<float> out(static_cast<size_t>(tensor.desc.shape.elements()));
  format.dequantize(format, tensor.data, tensor.desc.shape[0], tensor.desc.shape[1], 0, tensor.desc.shape[0],
                    out.data());
  return out;
}

TEST(Mxfp4Folder, HoldsTheValuesOfTransformersIn4Bits) {
  const auto model = test::load_model(folder);
  const auto gate_up = test::read_npy<float>(folder + "/gate_up.npy"),
             down = test::read_npy<float>(folder + "/down.npy");
  EXPECT_EQ(model->weights.expert("gate_experts", 1, 0).desc.format, &quant::find_format("fp4_g32_bf16"));
  const int64_t experts = gate_up.shape[0], width = gate_up.shape[1], ffn = gate_up.shape[2] / 2;
  for (int64_t e = 0; e < experts; ++e) {
    std::vector<float> gate, up, out;  // transformers has them transposed
    for (int64_t row = 0; row < ffn; ++row)
      for (int64_t j = 0; j < width; ++j) {
        const int64_t at = (e * width + j) * 2 * ffn + 2 * row;
        gate.push_back(gate_up.data[static_cast<size_t>(at)]);
        up.push_back(gate_up.data[static_cast<size_t>(at + 1)]);
      }
    for (int64_t row = 0; row < width; ++row)
      for (int64_t j = 0; j < ffn; ++j) out.push_back(down.data[static_cast<size_t>((e * ffn + j) * width + row)]);
    EXPECT_EQ(values(*model, "gate_experts", static_cast<int>(e)), gate) << e;
    EXPECT_EQ(values(*model, "up_experts", static_cast<int>(e)), up) << e;
    EXPECT_EQ(values(*model, "down_experts", static_cast<int>(e)), out) << e;
  }
}

/// Root mean square of the error by that of what is wanted.
double relative_error(const Model& model) {
  const auto tokens = test::read_npy<int32_t>(folder + "/tokens.npy").data;
  const auto want = test::read_npy<float>(folder + "/logits.npy").data;
  Engine engine(std::shared_ptr<const Model>(&model, [](const Model*) {}),
                {.threads = 1, .context = 96, .cache = DType::f32});
  std::vector<Row> rows;
  for (size_t i = 0; i < tokens.size(); ++i) rows.push_back({tokens[i], static_cast<int32_t>(i), 0, true});
  const std::span<const float> got = engine.run(rows);
  double error = 0, sum = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += std::pow(double{got[i]} - double{want[i]}, 2);
    sum += std::pow(double{want[i]}, 2);
  }
  return std::sqrt(error / sum);
}

TEST(Mxfp4Folder, LogitsAreThoseOfTransformersButForTheActivations) {
  // 8 bits are kept of what experts read: rounding is off by 1 / 127 / sqrt(12) of a row's maximum, here of about 3
  // times its root mean square, in each of four matmuls on the way, some of it amplified by norms
  EXPECT_LT(relative_error(*test::load_model(folder)), 4 * 3 / 127.0 / std::sqrt(12.0));
}

TEST(Mxfp4Folder, RefusesBlocksWithoutScales) {
  const test::TempDir dir;
  const std::string copy = dir / "model";
  std::filesystem::copy(folder, copy);
  std::string bytes = test::read_file(copy + "/model.safetensors");
  for (size_t at = 0; (at = bytes.find("1.mlp.experts.down_proj_scales", at)) != std::string::npos; ++at)
    bytes[at + 24] = 'S';
  test::write_file(copy + "/model.safetensors", bytes);
  try {
    test::load_model(copy);
    ADD_FAILURE() << "was taken";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("down_proj_scales"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace nibble::models
