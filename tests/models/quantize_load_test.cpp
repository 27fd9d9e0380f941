// SPDX-License-Identifier: Apache-2.0
// Quantising while loading: which weights, to what, and how near the numbers stay.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "models/decoder.h"
#include "models/quantize.h"
#include "quant/format.h"
#include "tensor/check.h"
#include "tests/support/load_model.h"
#include "tests/support/npy.h"

namespace nibble::models {
namespace {

const std::string folder = NIBBLE_TEST_DATA "/folders/llama-f32";

std::vector<float> values(const Tensor& tensor) {
  const int64_t n = tensor.dim(0), k = tensor.dim(1);
  std::vector<float> out(static_cast<size_t>(n * k));
  tensor.desc.format->dequantize(*tensor.desc.format, tensor.data, n, k, 0, n, out.data());
  return out;
}

TEST(QuantizeRule, ChoosesByNameWidthAndGroup) {
  const QuantFormat& f32 = quant::find_format("f32");
  const auto chosen = [&](const char* rule, const char* name, int64_t k) {
    return std::string(QuantizeRule(rule).choose(name, k, f32).name);
  };
  EXPECT_EQ(chosen("", "q", 64), "f32");
  EXPECT_EQ(chosen("q4", "q", 64), "q4s_g32");
  EXPECT_EQ(chosen("q8", "q", 64), "q8s_g32");
  EXPECT_EQ(chosen("q4s_g128", "q", 256), "q4s_g128");
  EXPECT_EQ(chosen("bf16", "q", 7), "bf16");
  // the head and the embedding keep at least 6 bits
  for (const char* head : {"embedding", "output"}) {
    EXPECT_EQ(chosen("q4", head, 64), "q6s_g64") << head;
    EXPECT_EQ(chosen("q8", head, 64), "q8s_g32") << head;
    EXPECT_EQ(chosen("q4", head, 32), "q8s_g32") << head;
    EXPECT_EQ(chosen("f16", head, 32), "f16") << head;
  }
  // groups that do not fit
  EXPECT_EQ(chosen("q4s_g128", "q", 64), "q4s_g64");
  EXPECT_EQ(chosen("q4s_g128", "q", 96), "q4s_g32");
  EXPECT_EQ(chosen("q4", "q", 48), "q4s_g16");
  EXPECT_EQ(chosen("q3", "q", 96), "q3s_g32");
  EXPECT_EQ(chosen("q3", "q", 100), "f32");
  EXPECT_EQ(chosen("q4s_row", "q", 100), "q4s_row");
  // small ones, and what is quantised already
  EXPECT_EQ(chosen("q4", "router", 64), "f32");
  EXPECT_EQ(QuantizeRule("q8").choose("q", 64, quant::find_format("q4s_g32")).name, "q4s_g32");
}

TEST(QuantizeRule, RefusesUnknownFormats) {
  for (const char* name : {"q9", "Q4", "q4z_g32x8", " "}) {
    try {
      QuantizeRule rule(name);
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("q4s_g32"), std::string::npos) << error.what();
    }
  }
}

TEST(QuantizeLoad, WeightsAreThoseOfTheFileRoundedToNearest) {
  const auto exact = test::load_model(folder, ""), q4 = test::load_model(folder, "q4");
  EXPECT_EQ(exact->format, "f32");
  EXPECT_EQ(q4->format, "q4s_g32");
  EXPECT_LT(q4->weights.packed_bytes(), exact->weights.packed_bytes() / 2);
  for (const char* name : {"q", "k", "v", "o", "gate", "up"}) {
    const Tensor &from = *exact->weights.find(name, 1), &to = *q4->weights.find(name, 1);
    ASSERT_EQ(to.desc.format->name, "q4s_g32") << name;
    const std::vector<float> floats = values(from);
    const auto size = to.desc.format->bytes(*to.desc.format, to.dim(0), to.dim(1));
    std::vector<std::byte> want(size);
    quant::quantize_rows(*to.desc.format, floats.data(), to.dim(0), to.dim(1), 0, to.dim(0), want.data());
    EXPECT_TRUE(std::equal(want.begin(), want.end(), to.data)) << name;
  }
  // 36 columns divide into no groups
  EXPECT_EQ(q4->weights.find("down", 0)->desc.format->name, "f32");
  EXPECT_EQ(q4->weights.find("embedding", -1)->desc.format->name, "q8s_g32");
}

/// The matrix of `n` rows, or of an expert, is what quantising its floats gives.
void expect_rounded(const Tensor& from, const Tensor& to, const std::string& what) {
  if (from.desc.dtype != DType::packed || to.desc.format->layout.bits == 0) return;
  ASSERT_EQ(from.desc.format->layout.bits, 0) << what;
  const std::vector<float> floats = values(from);
  std::vector<std::byte> want(to.desc.format->bytes(*to.desc.format, to.dim(0), to.dim(1)));
  quant::quantize_rows(*to.desc.format, floats.data(), to.dim(0), to.dim(1), 0, to.dim(0), want.data());
  EXPECT_TRUE(std::equal(want.begin(), want.end(), to.data)) << what;
}

// Rows that do not stand together, transposed matrices, rows divided by their length, experts.
TEST(QuantizeLoad, PiecesAreRoundedLikeWholeTensors) {
  for (const char* name : {"bloom", "chatglm", "gpt2", "gptneox", "phi3", "baichuan2", "mixtral", "deepseek2-lite"}) {
    const std::string path = std::string(NIBBLE_TEST_DATA "/models/") + name;
    const auto exact = test::load_model(path, ""), eight = test::load_model(path, "q8s_row");
    int rounded = 0;
    for (const Name& weight : exact->arch->names)
      for (int layer = -1; layer < exact->config.layers; ++layer) {
        const Tensor *from = exact->weights.find(weight.name, layer), *to = eight->weights.find(weight.name, layer);
        if (from == nullptr) continue;
        ASSERT_NE(to, nullptr);
        const std::string what = std::string(name) + " " + std::string(weight.name) + " " + std::to_string(layer);
        const int experts = exact->weights.experts(weight.name, layer);
        for (int e = 0; e < experts; ++e)
          expect_rounded(exact->weights.expert(weight.name, layer, e), eight->weights.expert(weight.name, layer, e),
                         what);
        if (experts == 0) expect_rounded(*from, *to, what);
        rounded += to->desc.dtype == DType::packed && to->desc.format->layout.bits == 8;
      }
    EXPECT_GT(rounded, exact->config.layers) << name;
  }
}

TEST(QuantizeLoad, LogitsStayNear) {
  const std::vector<int32_t> tokens = test::read_npy<int32_t>(folder + "/tokens.npy").data;
  const std::vector<float> want = test::read_npy<float>(folder + "/logits.npy").data;
  const auto error = [&](const char* quant) {
    Engine engine(test::load_model(folder, quant), {.threads = 1, .context = 96, .cache = DType::f32});
    std::vector<Row> rows;
    for (size_t i = 0; i < tokens.size(); ++i) rows.push_back({tokens[i], static_cast<int32_t>(i), 0, true});
    const std::span<const float> got = engine.run(rows);
    double sum = 0, norm = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      const double difference = double{got[i]} - double{want[i]};
      sum += difference * difference, norm += double{want[i]} * double{want[i]};
    }
    return std::sqrt(sum / norm);
  };
  const double eight = error("q8"), four = error("q4"), exact = error("");
  EXPECT_LT(exact, 1e-5);
  // a code of 8 bits is off by 1/254 of the peak at most, one of 4 bits by 1/16
  EXPECT_LT(eight, 1.0 / 254 * 4);
  EXPECT_LT(four, 1.0 / 16 * 4);
  EXPECT_LT(eight, four / 4);
}

}  // namespace
}  // namespace nibble::models
