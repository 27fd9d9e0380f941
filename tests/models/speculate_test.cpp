// SPDX-License-Identifier: Apache-2.0
// Drafting from the text so far, when it is done, and that it never changes what is generated.
#include "models/speculate.h"

#include <gtest/gtest.h>

#include <vector>

#include "models/generate.h"
#include "tests/support/tiny_model.h"

namespace nibble::models {
namespace {

std::vector<int32_t> drafted(Speculator& speculator, int64_t limit) {
  const auto draft = speculator.draft(limit);
  return {draft.begin(), draft.end()};
}

void accept(Speculator& speculator, const std::vector<int32_t>& tokens) {
  for (int32_t token : tokens) speculator.accept(token);
}

TEST(Speculator, DraftsWhatFollowedTheLongestMatchTheLatestOfEquals) {
  StepCosts costs;
  Speculator speculator(3, costs);
  accept(speculator, {1, 2, 3, 70, 71, 9, 2, 3, 80, 9, 2, 3, 81, 5, 5, 5});
  EXPECT_EQ(drafted(speculator, 10), (std::vector<int32_t>{5, 5, 5}))
      << "a match that reaches the end goes on with itself";
  accept(speculator, {1, 2, 3});
  EXPECT_EQ(drafted(speculator, 10), (std::vector<int32_t>{70, 71, 9}))
      << "three tokens match, though two matched later";
  EXPECT_EQ(drafted(speculator, 2), (std::vector<int32_t>{70, 71}));
  EXPECT_TRUE(drafted(speculator, 0).empty());
  accept(speculator, {44, 9, 2, 3});
  EXPECT_EQ(drafted(speculator, 1), (std::vector<int32_t>{81})) << "of two equal matches the latest";
  accept(speculator, {45});
  EXPECT_TRUE(drafted(speculator, 10).empty());
}

TEST(Speculator, DraftsOnlyWhatPaysByItself) {
  const std::vector<int32_t> period = {11, 12, 13, 14, 15, 16, 17, 18};
  const auto after = [&](double seconds_per_more_row, int repeats) {
    StepCosts costs;
    for (int rows = 1; rows <= StepCosts::max_rows; ++rows) costs.measured(rows, 1 + seconds_per_more_row * (rows - 1));
    Speculator speculator(Speculator::automatic, costs);
    for (int i = 0; i < repeats; ++i) accept(speculator, period);
    return drafted(speculator, 100).size();
  };
  EXPECT_EQ(after(0.02, 8), size_t{Speculator::max_draft}) << "cheap rows, a text that repeats";
  EXPECT_EQ(after(1.1, 8), 0u) << "two rows cost more than two steps";
  StepCosts unknown;
  Speculator speculator(Speculator::automatic, unknown);
  accept(speculator, {1, 2, 3, 1, 2});
  EXPECT_TRUE(drafted(speculator, 5).empty()) << "nothing is known of the machine before the first step";
  StepCosts costs;
  costs.measured(1, 1);
  Speculator wrong(Speculator::automatic, costs);
  int32_t other = 1000;
  for (int i = 0; i < 60; ++i) accept(wrong, {1, 2, other++});  // a pair that is followed by something else each time
  accept(wrong, {1, 2});
  EXPECT_TRUE(drafted(wrong, 5).empty()) << "such drafts were wrong every time";
}

TEST(StepCosts, GuessesBetweenWhatWasMeasured) {
  StepCosts costs;
  costs.measured(1, 2);
  EXPECT_GT(costs.ratio(2), 1);
  costs.measured(4, 5);
  EXPECT_DOUBLE_EQ(costs.ratio(4), 2.5);
  EXPECT_DOUBLE_EQ(costs.ratio(3), 2);
  EXPECT_GT(costs.ratio(16), costs.ratio(4));
  costs.measured(4, 50);  // once disturbed
  EXPECT_LT(costs.ratio(4), 3.5);
  costs.measured(17, 1);  // not a step of interest
  for (int i = 0; i < 300; ++i) costs.measured(1, 2);
  EXPECT_LT(costs.ratio(4), 1.5) << "an old measurement is worth repeating";
}

std::shared_ptr<const Model> tiny() {
  static const std::shared_ptr<const Model> model = [] {
    const test::TempDir dir;
    test::tiny_llama().save(dir / "model.gguf");
    return Model::load(dir / "model.gguf");
  }();
  return model;
}

struct Said {
  std::vector<int32_t> tokens, kept;
  StopReason reason;
  int accepted;
};

Said say(const std::vector<int32_t>& prompt, GenerateOptions options, int speculate, int threads) {
  Engine engine(tiny(), {.threads = threads});
  Session session(engine);
  options.speculate = speculate;
  const GenerateResult result = session.generate(prompt, options);
  EXPECT_EQ(engine.cache().tokens(0), static_cast<int64_t>(session.tokens().size()));
  return {result.tokens, session.tokens(), result.reason, result.accepted_tokens};
}

TEST(Speculation, ChangesNoTokenWhateverTheSampling) {
  int accepted = 0;
  for (int which = 0; which < 6; ++which) {
    std::vector<int32_t> prompt = {1};
    for (int i = 0; i < 20; ++i) prompt.push_back(259 + (i * (which + 1)) % 7);
    for (int sampling = 0; sampling < 5; ++sampling) {
      GenerateOptions options;
      options.max_tokens = 60;  // more than the context has room for
      options.ignore_eos = sampling % 2 == 0;
      options.sampler.temperature = sampling == 0 ? 0.0f : 0.05f * static_cast<float>(sampling);
      options.sampler.seed = static_cast<uint64_t>(which * 10 + sampling);
      if (sampling == 3) options.sampler.repeat_penalty = 1.1f;
      if (sampling == 4) options.sampler.frequency_penalty = 0.2f, options.max_tokens = 9;
      const Said plain = say(prompt, options, Speculator::off, 1);
      EXPECT_EQ(plain.accepted, 0);
      for (const int tokens : {1, 4, Speculator::max_draft, Speculator::automatic}) {
        const Said drafted = say(prompt, options, tokens, tokens == 4 ? 2 : 1);
        ASSERT_EQ(drafted.tokens, plain.tokens)
            << "prompt " << which << ", sampling " << sampling << ", drafts of " << tokens;
        ASSERT_EQ(drafted.kept, plain.kept);
        ASSERT_EQ(drafted.reason, plain.reason);
        accepted += drafted.accepted;
      }
    }
  }
  EXPECT_GT(accepted, 100) << "the test must reach accepted drafts";
}

TEST(Speculation, StopsInsideADraftAsWithoutOne) {
  Engine engine(tiny(), {.threads = 1});
  Session session(engine);
  const std::vector<int32_t> prompt = {1, 260, 261, 262, 263, 260, 261, 262, 263, 260, 261};
  GenerateOptions options;
  options.sampler.temperature = 0;
  options.ignore_eos = true;
  options.max_tokens = 30;
  options.speculate = Speculator::off;
  const std::string text = session.generate(prompt, options).text;
  for (size_t at = 0; at + 3 < text.size(); at += 5) {
    options.stop = {text.substr(at, 3)};
    options.speculate = Speculator::off;
    const GenerateResult plain = session.generate(prompt, options);
    const std::vector<int32_t> kept = session.tokens();
    options.speculate = 6;
    const GenerateResult drafted = session.generate(prompt, options);
    EXPECT_EQ(drafted.text, plain.text);
    EXPECT_EQ(drafted.tokens, plain.tokens);
    EXPECT_EQ(session.tokens(), kept);
    EXPECT_EQ(drafted.reason, plain.reason);
  }
}

}  // namespace
}  // namespace nibble::models
