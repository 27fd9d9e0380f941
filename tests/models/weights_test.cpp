// SPDX-License-Identifier: Apache-2.0
// What paths with pieces, experts and whole names make of a file.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "models/builder.h"
#include "models/weights.h"
#include "tensor/check.h"
#include "tests/support/gguf_writer.h"

namespace nibble::models {
namespace {

using test::GgufWriter;

constexpr int64_t width = 32, experts = 3, n = 20;

Arch arch(std::vector<Name> names) {
  names.push_back({"embedding", "token_embd"});
  return {.name = "test",
          .model_types = {"test"},
          .examples = "",
          .names = std::move(names),
          .block = [](Builder&, Value x) { return x; },
          .head = [](Builder& b, Value x) { return b.logits(x); }};
}

std::vector<float> numbers(int64_t count, float first) {
  std::vector<float> out(static_cast<size_t>(count));
  for (size_t i = 0; i < out.size(); ++i) out[i] = first + static_cast<float>(i);
  return out;
}

Weights load(GgufWriter& w, const Arch& arch) {
  const test::TempDir dir;
  w.tensor("token_embd.weight", {4, width}, numbers(4 * width, 0));
  w.save(dir / "model.gguf");
  Config config;
  config.layers = 1, config.width = width, config.heads = config.kv_heads = 2, config.head_dim = 16, config.vocab = 4;
  ThreadPool pool(2);
  return Weights::load(Checkpoint::open(dir / "model.gguf"), arch, config, pool);
}

std::vector<float> values(const Tensor& tensor) {
  const int64_t rows = tensor.dim(0), k = tensor.desc.shape.rank() == 2 ? tensor.dim(1) : 1;
  std::vector<float> out(static_cast<size_t>(rows * k));
  if (tensor.desc.dtype == DType::f32) out.assign(tensor.as<float>(), tensor.as<float>() + out.size());
  else tensor.desc.format->dequantize(*tensor.desc.format, tensor.data, rows, k, 0, rows, out.data());
  return out;
}

void expect_experts(const Weights& weights) {
  constexpr int64_t padded = 32;
  ASSERT_EQ(weights.experts("up", 0), experts);
  const Tensor* all = weights.find("up", 0);
  ASSERT_NE(all, nullptr);
  ASSERT_EQ(all->desc.shape, (Shape{experts * padded, width}));
  const std::vector<float> stack = values(*all);
  for (int e = 0; e < experts; ++e) {
    const std::vector<float> want = numbers(n * width, 1000.0f * static_cast<float>(e)),
                             got = values(weights.expert("up", 0, e));
    EXPECT_EQ(got, want) << "expert " << e;
    EXPECT_TRUE(std::equal(want.begin(), want.end(), stack.begin() + e * padded * width)) << "expert " << e;
    EXPECT_EQ(stack[static_cast<size_t>((e * padded + n) * width)], 0.0f) << "between the experts";
    EXPECT_EQ(values(weights.expert("up", 0, e, ".bias")), numbers(n, 10.0f * static_cast<float>(e)));
  }
  EXPECT_THROW(weights.expert("up", 0, experts), Error);
  EXPECT_EQ(weights.experts("embedding", -1), 0);
}

TEST(Weights, ExpertsOfOneCubeAndOfATensorEachAreTheSame) {
  std::vector<float> cube, biases;
  GgufWriter merged, single;
  for (GgufWriter* w : {&merged, &single}) w->str("general.architecture", "test");
  for (int e = 0; e < experts; ++e) {
    const std::vector<float> matrix = numbers(n * width, 1000.0f * static_cast<float>(e)),
                             bias = numbers(n, 10.0f * static_cast<float>(e));
    cube.insert(cube.end(), matrix.begin(), matrix.end());
    biases.insert(biases.end(), bias.begin(), bias.end());
    const std::string stem = "h.0.experts." + std::to_string(e) + ".up";
    single.tensor(stem + ".weight", {n, width}, matrix).tensor(stem + ".bias", {n}, bias);
  }
  merged.tensor("blk.0.up_exps.weight", {experts, n, width}, cube).tensor("blk.0.up_exps.bias", {experts, n}, biases);
  const Arch both = arch({{"up", "blk.{}.up_exps#experts|h.{}.experts.{e}.up"}});
  expect_experts(load(merged, both));
  expect_experts(load(single, both));
}

TEST(Weights, ExpertsOfOtherShapesAreRefused) {
  GgufWriter w;
  w.str("general.architecture", "test");
  w.tensor("h.0.experts.0.up.weight", {n, width}, numbers(n * width, 0));
  w.tensor("h.0.experts.1.up.weight", {n + 1, width}, numbers((n + 1) * width, 0));
  try {
    load(w, arch({{"up", "h.{}.experts.{e}.up"}}));
    FAIL() << "taken";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("h.0.experts.1.up.weight"), std::string::npos) << error.what();
  }
}

TEST(Weights, OneTensorIsSeveralWeights) {
  GgufWriter w;
  w.str("general.architecture", "test");
  const std::vector<float> all = numbers(3 * width * width, 0), bias = numbers(3 * width, 0);
  w.tensor("h.0.attn.weight", {3 * width, width}, all).tensor("h.0.attn.bias", {3 * width}, bias);
  const Weights weights =
      load(w, arch({{"q", "blk.{}.q|h.{}.attn#q"}, {"k", "blk.{}.k|h.{}.attn#k"}, {"v", "?h.{}.attn#v"}}));
  int64_t part = 0;
  for (const char* name : {"q", "k", "v"}) {
    ASSERT_NE(weights.find(name, 0), nullptr) << name;
    EXPECT_EQ(values(*weights.find(name, 0)), numbers(width * width, static_cast<float>(part * width * width))) << name;
    EXPECT_EQ(values(*weights.find(name, 0, ".bias")), numbers(width, static_cast<float>(part * width))) << name;
    ++part;
  }
  EXPECT_TRUE(weights.unused().empty());
}

TEST(Weights, WholeNamesHaveNoSuffix) {
  GgufWriter w;
  w.str("general.architecture", "test");
  w.tensor("h.0.sinks", {4}, numbers(4, 7))
      .tensor("h.0.down", {n, width}, numbers(n * width, 1))
      .tensor("h.0.down_bias", {n}, numbers(n, 3));
  const Weights weights = load(w, arch({{"sinks", "blk.{}.sinks|=h.{}.sinks"}, {"down", "=h.{}.down"}}));
  EXPECT_EQ(values(*weights.find("sinks", 0)), numbers(4, 7));
  EXPECT_EQ(values(*weights.find("down", 0)), numbers(n * width, 1));
  EXPECT_EQ(values(*weights.find("down", 0, ".bias")), numbers(n, 3));
}

TEST(Weights, AScaleForAWholeTensorIsRefused) {
  GgufWriter w;
  w.str("general.architecture", "test");
  w.tensor("blk.0.up.weight", {n, width}, numbers(n * width, 0)).tensor("blk.0.up.scale", {1}, numbers(1, 2));
  try {
    load(w, arch({{"up", "blk.{}.up"}}));
    FAIL() << "loaded";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("blk.0.up.scale"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace nibble::models
