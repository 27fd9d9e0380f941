// SPDX-License-Identifier: Apache-2.0
// Types chosen by measurement: on a small model of random weights.
#include "models/choose_types.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "models/perplexity.h"
#include "models/sensitivity.h"
#include "tensor/check.h"
#include "tests/support/tiny_model.h"

namespace nibble::models {
namespace {

/// A small model of random weights, 32 and 64 wide.
std::string save_model(const test::TempDir& dir) {
  test::tiny_llama(64).save(dir / "model.gguf");
  return dir / "model.gguf";
}

std::string text() {
  std::string all;
  for (int i = 0; i < 40; ++i) all += message("abc de fgh ", i, " ");
  return all;
}

QuantizeOptions options_for(double bits, int threads = 2) {
  QuantizeOptions options;
  options.automatic = AutoTypes{.bits = bits, .bytes = 0, .candidates = usual_candidates(false)};
  options.calibration = text();
  options.threads = options.calibrate.threads = threads;
  options.calibrate.chunks = 2;
  options.calibrate.context = 32;
  return options;
}

std::vector<std::string> types_of(const QuantizeReport& report) {
  std::vector<std::string> types;
  for (const PlannedTensor& t : report.tensors) types.emplace_back(t.to->name);
  return types;
}

TEST(ChooseTypes, FillTheSizeWithSeveralTypesAndLoad) {
  const test::TempDir dir;
  const QuantizeReport report = quantize_file(save_model(dir), dir / "small.gguf", options_for(8));
  double weights = 0, bits = 0;
  std::set<std::string_view> types;
  for (const PlannedTensor& t : report.tensors) {
    weights += static_cast<double>(t.shape.elements());
    bits += 8 * static_cast<double>(t.bytes_out);
    if (t.matrix) types.insert(t.to->name);
  }
  EXPECT_LE(bits / weights, 8);
  EXPECT_GT(bits / weights, 7.8) << "what is allowed is used";
  EXPECT_GE(types.size(), 2u);
  EXPECT_GT(report.divergence, 0);
  EXPECT_LT(report.divergence, 1);
  const auto model = Model::load(dir / "small.gguf");
  Engine engine(model, {.threads = 1});
  const auto tokens = model->tokenizer->encode(text());
  EXPECT_TRUE(std::isfinite(perplexity(engine, tokens, 32, 2).perplexity));
}

TEST(ChooseTypes, DoNotDependOnThreadsAndKeepWhatRulesSay) {
  const test::TempDir dir;
  const std::string model = save_model(dir);
  QuantizeOptions one = options_for(8, 1), two = options_for(8, 2);
  one.rules = two.rules = {parse_type_rule("blk.0.ffn_down=q5_1")};
  const QuantizeReport first = plan_quantize(model, one), second = plan_quantize(model, two);
  EXPECT_EQ(types_of(first), types_of(second));
  EXPECT_EQ(first.divergence, second.divergence);
  for (const PlannedTensor& t : first.tensors)
    EXPECT_TRUE(t.name != "blk.0.ffn_down.weight" || t.to->name == "q5_1");
}

TEST(ChooseTypes, MoreBitsLoseLess) {
  const test::TempDir dir;
  const std::string model = save_model(dir);
  EXPECT_LT(plan_quantize(model, options_for(8.5)).divergence, 0.5 * plan_quantize(model, options_for(7)).divergence);
}

TEST(ChooseTypes, NeedATextAndRoom) {
  const test::TempDir dir;
  const std::string model = save_model(dir);
  QuantizeOptions options = options_for(8);
  options.calibration.clear();
  EXPECT_THROW(plan_quantize(model, options), Error);
  EXPECT_THROW(plan_quantize(model, options_for(2)), Error) << "no type is that small";
}

TEST(Sensitivity, LeavesTheModelAsItWas) {
  const test::TempDir dir;
  const auto model = Model::load(save_model(dir));
  const auto tokens = model->tokenizer->encode(text());
  Engine engine(model, {.threads = 1});
  const double before = perplexity(engine, tokens, 32, 2).nll;
  const Sensitivity found =
      measure_sensitivity(model, tokens, {}, {.threads = 2, .context = 32, .chunks = 1, .layer_groups = 2});
  EXPECT_EQ(perplexity(engine, tokens, 32, 2).nll, before);
  for (const char* name : {"blk.0.q.weight", "blk.1.down.weight", "embedding.weight"}) {
    ASSERT_NE(found.find(name), found.end()) << name;
    EXPECT_GT(found.find(name)->second, 0) << name;
  }
  EXPECT_NE(found.find("blk.0.q.weight")->second, found.find("blk.1.q.weight")->second);
  const Sensitivity together =
      measure_sensitivity(model, tokens, {}, {.threads = 2, .context = 32, .chunks = 1, .layer_groups = 1});
  EXPECT_EQ(together.find("blk.0.q.weight")->second, together.find("blk.1.q.weight")->second);
  EXPECT_THROW(measure_sensitivity(model, std::span(tokens).first(20), {}, {.threads = 1, .context = 32}), Error);
}

TEST(Sensitivity, MakesFloatsOfWhatIsQuantised) {
  LoadOptions load;
  load.floats = true;
  const auto model = Model::load(NIBBLE_SOURCE_DIR "/models/tiny/austen.gguf", load);
  EXPECT_EQ(model->weights.find("q", 0)->desc.format->name, "f16");
  EXPECT_EQ(model->weights.find("embedding", -1)->desc.format->name, "f16");
}

}  // namespace
}  // namespace nibble::models
