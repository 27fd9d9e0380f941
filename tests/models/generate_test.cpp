// SPDX-License-Identifier: Apache-2.0
// Sessions on a small random model: what ends a generation, what is streamed, what the cache is reused for.
#include "models/generate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "tensor/check.h"
#include "tests/support/tiny_model.h"

namespace nibble::models {
namespace {

std::shared_ptr<const Model> tiny() {
  static const std::shared_ptr<const Model> model = [] {
    const test::TempDir dir;
    test::tiny_llama().save(dir / "model.gguf");
    return Model::load(dir / "model.gguf");
  }();
  return model;
}

const std::vector<int32_t> prompt = {1, 260, 270, 280, 290, 265};

GenerateOptions greedy(int max_tokens) {
  GenerateOptions options;
  options.sampler.temperature = 0;
  options.max_tokens = max_tokens;
  options.ignore_eos = true;
  return options;
}

TEST(Session, StreamsWhatItReturns) {
  Engine engine(tiny(), {.threads = 1});
  Session session(engine);
  std::string streamed;
  const GenerateResult result = session.generate(prompt, greedy(20), [&](std::string_view text) {
    streamed += text;
    return true;
  });
  EXPECT_EQ(result.reason, StopReason::max_tokens);
  EXPECT_EQ(result.text, streamed);
  EXPECT_EQ(result.tokens.size(), 20u);
  EXPECT_EQ(result.generated_tokens, 20);
  EXPECT_EQ(result.prompt_tokens, 6);
  EXPECT_EQ(result.reused_tokens, 0);
  EXPECT_EQ(session.tokens().size(), 25u) << "the last token has not been run";
}

TEST(Session, ReusesTheSharedPrefixAndSaysTheSame) {
  Engine engine(tiny(), {.threads = 1});
  Session session(engine);
  const std::vector<int32_t> first = session.generate(prompt, greedy(10)).tokens;
  const GenerateResult again = session.generate(prompt, greedy(10));
  EXPECT_EQ(again.reused_tokens, 5) << "the last token of the prompt is run again for its logits";
  EXPECT_EQ(again.tokens, first);
  std::vector<int32_t> longer = prompt;
  longer.insert(longer.end(), first.begin(), first.begin() + 4);
  const GenerateResult rest = session.generate(longer, greedy(6));
  EXPECT_EQ(rest.reused_tokens, 9);
  EXPECT_EQ(rest.tokens, std::vector<int32_t>(first.begin() + 4, first.end()));
  std::vector<int32_t> other = prompt;
  other[2] = 275;
  EXPECT_EQ(session.generate(other, greedy(1)).reused_tokens, 2);
}

TEST(Session, StopStringsEndTheTextBeforeThem) {
  Engine engine(tiny(), {.threads = 1});
  Session session(engine);
  const std::string text = session.generate(prompt, greedy(30)).text;
  ASSERT_GT(text.size(), 12u);
  const std::string stop = text.substr(text.size() / 2, 4);  // may cut through tokens
  GenerateOptions options = greedy(30);
  options.stop = {"never said", stop};
  std::string streamed;
  const GenerateResult result = session.generate(prompt, options, [&](std::string_view piece) {
    streamed += piece;
    return true;
  });
  EXPECT_EQ(result.reason, StopReason::stop_string);
  EXPECT_EQ(result.text, text.substr(0, text.find(stop)));
  EXPECT_EQ(streamed, result.text);
}

TEST(Session, ContextFullAndTooLongAPrompt) {
  Engine engine(tiny(), {.threads = 1, .context = 16});
  Session session(engine);
  const GenerateResult result = session.generate(prompt, greedy(-1));
  EXPECT_EQ(result.reason, StopReason::context_full);
  EXPECT_EQ(result.generated_tokens, 11) << "the last one needs no room of its own";
  const std::vector<int32_t> full(16, 270), over(17, 270);
  EXPECT_EQ(session.generate(full, greedy(-1)).generated_tokens, 1);
  try {
    session.generate(over, greedy(1));
    FAIL() << "does not fit";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "the prompt has 17 tokens, the context only 16");
  }
}

TEST(Session, StopsWhenAskedTo) {
  Engine engine(tiny(), {.threads = 1});
  Session session(engine);
  std::atomic<bool> cancel = true;
  EXPECT_EQ(session.generate(prompt, greedy(5), {}, &cancel).reason, StopReason::cancelled);
  EXPECT_EQ(session.generate(prompt, greedy(5), {}, &cancel).prompt_tokens, 0);
  int pieces = 0;
  const auto two = [&](std::string_view) { return ++pieces < 2; };
  EXPECT_EQ(session.generate(prompt, greedy(50), two).reason, StopReason::cancelled);
  EXPECT_EQ(pieces, 2);
  EXPECT_EQ(session.generate(prompt, greedy(0)).reason, StopReason::max_tokens);
}

TEST(Session, SequencesDoNotDisturbEachOther) {
  Engine engine(tiny(), {.threads = 1, .sequences = 2});
  Session a(engine, 0), b(engine, 1);
  const std::vector<int32_t> alone = a.generate(prompt, greedy(8)).tokens;
  b.generate(std::vector<int32_t>{1, 299, 298}, greedy(8));
  std::vector<int32_t> longer = prompt;
  longer.insert(longer.end(), alone.begin(), alone.end());
  const std::vector<int32_t> continued = a.generate(longer, greedy(4)).tokens;
  Engine fresh(tiny(), {.threads = 1});
  EXPECT_EQ(Session(fresh).generate(longer, greedy(4)).tokens, continued);
}

TEST(Engine, RefusesRowsThatDoNotFitAndRunsNothing) {
  Engine engine(tiny(), {.threads = 1, .context = 32, .sequences = 2});
  const auto run = [&](std::vector<Row> rows) { engine.run(rows); };
  EXPECT_THROW(run({{300, 0, 0, true}}), Error);
  EXPECT_THROW(run({{-1, 0, 0, true}}), Error);
  EXPECT_THROW(run({{5, 1, 0, true}}), Error) << "position 0 has not been run";
  EXPECT_THROW(run({{5, 0, 2, true}}), Error);
  EXPECT_THROW(run({{5, 0, 0, true}, {5, 2, 0, true}}), Error);
  EXPECT_THROW(run({{5, 0, 0, true}, {5, 0, 1, true}, {5, 1, 0, true}}), Error);
  EXPECT_EQ(engine.cache().tokens(0), 0);
  std::vector<Row> rows;
  for (int i = 0; i < 33; ++i) rows.push_back({5, i, 0, false});
  EXPECT_THROW(engine.run(rows), Error);
  rows.pop_back();
  EXPECT_TRUE(engine.run(rows).empty());
  EXPECT_EQ(engine.cache().tokens(0), 32);
}

}  // namespace
}  // namespace nibble::models
