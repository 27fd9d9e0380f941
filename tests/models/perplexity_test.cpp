// SPDX-License-Identifier: Apache-2.0
// Perplexity, divergence and multiple choice on a small random model, where the right numbers can be worked out.
#include "models/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "models/multiple_choice.h"
#include "tensor/check.h"
#include "tests/support/tiny_model.h"

namespace nibble::models {
namespace {

std::shared_ptr<const Model> load(const test::GgufWriter& writer) {
  const test::TempDir dir;
  writer.save(dir / "model.gguf");
  return Model::load(dir / "model.gguf");
}

/// All rows of the output matrix alike: every token is as likely as any other.
std::shared_ptr<const Model> blind() {
  test::GgufWriter writer = test::tiny_llama();
  writer.tensor("output.weight", {300, 32}, std::vector<float>(300 * 32, 0.5f));
  return load(writer);
}

std::vector<int32_t> some_tokens(size_t count) {
  std::vector<int32_t> tokens(count);
  for (size_t i = 0; i < count; ++i) tokens[i] = static_cast<int32_t>(i * 3 % 300);
  return tokens;
}

std::string read_all(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(Perplexity, OfGuessingBlindlyIsTheVocabulary) {
  Engine engine(blind(), {.threads = 1});
  const std::vector<int32_t> tokens = some_tokens(100);
  int calls = 0;
  const PerplexityResult result =
      perplexity(engine, tokens, 16, 4, [&](int chunk, double) { EXPECT_EQ(chunk, ++calls); });
  EXPECT_EQ(result.chunks, 4);
  EXPECT_EQ(result.scored, 4 * 7);
  EXPECT_NEAR(result.perplexity, 300, 1e-3);
  EXPECT_THROW(perplexity(engine, std::span(tokens).first(31), 16, -1), Error);
  EXPECT_EQ(perplexity(engine, tokens, 16, -1).chunks, 6);
}

TEST(Perplexity, DoesNotDependOnThreads) {
  const auto model = load(test::tiny_llama());
  Engine one(model, {.threads = 1}), two(model, {.threads = 2});
  const std::vector<int32_t> tokens = some_tokens(200);
  EXPECT_EQ(perplexity(one, tokens, 32, -1).nll, perplexity(two, tokens, 32, -1).nll);
}

TEST(Divergence, OfAModelFromItselfIsTheRoundingOfTheFile) {
  const test::TempDir dir;
  Engine engine(load(test::tiny_llama()), {.threads = 2});
  const std::vector<int32_t> tokens = some_tokens(200);
  const PerplexityResult plain = perplexity(engine, tokens, 32, -1, {}, dir / "base");
  const LogitsFile base(dir / "base");
  EXPECT_EQ(base.shape().chunks, 6);
  EXPECT_TRUE(std::ranges::equal(base.tokens(5), std::span(tokens).subspan(5 * 32, 32)));
  const DivergenceResult result = compare_logits(engine, base, -1);
  // log-probabilities are stored in steps of at most 16 / 65535
  const double rounding = 16.0 / 65535;
  EXPECT_EQ(result.divergences.size(), static_cast<size_t>(plain.scored));
  EXPECT_NEAR(result.perplexity.value, plain.perplexity, 1e-4 * plain.perplexity) << "f32 sums of logits";
  EXPECT_GE(result.log_ratio.value, -rounding) << "tokens that are very unlikely are stored as less so";
  EXPECT_LE(std::abs(result.divergences.front()), rounding);
  EXPECT_LE(std::abs(result.divergences.back()), rounding);
  EXPECT_GT(result.same_top.value, 0.95);
  EXPECT_LE(result.rms_change.value, rounding);
  EXPECT_EQ(compare_logits(engine, base, 2).chunks, 2);
}

TEST(Divergence, OfBlindGuessesIsTheLostEntropy) {
  const test::TempDir dir;
  Engine engine(load(test::tiny_llama()), {.threads = 1}), blindly(blind(), {.threads = 1});
  const std::vector<int32_t> tokens = some_tokens(64);
  perplexity(engine, tokens, 32, -1, {}, dir / "base");
  const LogitsFile base(dir / "base");
  const DivergenceResult result = compare_logits(blindly, base, -1);
  // KL(p, uniform) = ln(vocabulary) - entropy of p
  double expected = 0;
  for (int chunk = 0; chunk < 2; ++chunk)
    for (int i = 0; i < base.shape().scored(); ++i) {
      const LogProbs row = base.row(chunk, i);
      double entropy = 0;
      for (int token = 0; token < 300; ++token) entropy -= std::exp(double{row[token]}) * double{row[token]};
      expected += (std::log(300.0) - entropy) / (2 * base.shape().scored());
    }
  EXPECT_NEAR(result.divergence.value, expected, 1e-4);
  EXPECT_NEAR(result.perplexity.value, 300, 1e-2);
}

TEST(Divergence, RefusesFilesThatAreNotWhole) {
  const test::TempDir dir;
  Engine engine(load(test::tiny_llama()), {.threads = 1});
  perplexity(engine, some_tokens(64), 32, -1, {}, dir / "base");
  const std::string whole = read_all(dir / "base");
  const auto refused = [&](const std::string& text) {
    std::ofstream(dir / "broken", std::ios::binary) << text;
    EXPECT_THROW(LogitsFile{dir / "broken"}, Error) << text.size() << " bytes of " << whole.size();
  };
  for (const size_t size : {0ul, 7ul, 8ul, 19ul, 20ul, 100ul, whole.size() - 1}) refused(whole.substr(0, size));
  refused(whole + "x");
  for (const size_t field : {8ul, 12ul, 16ul})
    for (const int32_t number : {0, -1, 1 << 30, INT32_MAX}) {
      std::string text = whole;
      std::memcpy(text.data() + field, &number, sizeof(number));
      refused(text);
    }
  std::string text = whole;
  const int32_t token = 300;
  std::memcpy(text.data() + 20, &token, sizeof(token));
  std::ofstream(dir / "token", std::ios::binary) << text;
  EXPECT_THROW(compare_logits(engine, LogitsFile(dir / "token"), -1), Error);
}

TEST(Divergence, QuantilesLieBetweenNeighbours) {
  const std::vector<float> sorted = {1, 2, 4, 8};
  EXPECT_EQ(quantile(sorted, 0), 1);
  EXPECT_EQ(quantile(sorted, 1), 8);
  EXPECT_EQ(quantile(sorted, 0.5), 3);
  EXPECT_EQ(quantile(std::span(sorted).first(1), 0.3), 1);
}

TEST(MultipleChoice, ReadsBothForms) {
  const auto hellaswag = read_hellaswag("The cat\n2\na\nb\nc\nd\r\nA dog\n0\ne\nf\ng\nh", "f");
  ASSERT_EQ(hellaswag.size(), 2u);
  EXPECT_EQ(hellaswag[0].answer, 2u);
  EXPECT_EQ(hellaswag[0].endings[3], "d");
  EXPECT_EQ(hellaswag[1].context, "A dog");
  const auto json =
      read_multiple_choice("{\"question\": \"q\", \"choices\": [\"a\", \"b\", \"c\"], \"answer\": 1}\n\n", "f");
  ASSERT_EQ(json.size(), 1u);
  EXPECT_EQ(json[0].endings.size(), 3u);
  EXPECT_EQ(json[0].answer, 1u);
}

TEST(MultipleChoice, RefusesWhatIsNotATask) {
  for (const char* text :
       {"", "a\n1\nb\nc\nd", "a\n4\nb\nc\nd\ne", "a\n-1\nb\nc\nd\ne", "a\n1x\nb\nc\nd\ne", "a\n1\nb\n\nd\ne"})
    EXPECT_THROW(read_hellaswag(text, "f"), Error) << text;
  for (const char* text : {"", "\n", "[]", "{}", "{\"question\": \"q\", \"choices\": [\"a\"], \"answer\": 0}",
                           "{\"question\": \"q\", \"choices\": [\"a\", \"b\"], \"answer\": 2}",
                           "{\"question\": 1, \"choices\": [\"a\", \"b\"], \"answer\": 0}",
                           "{\"question\": \"q\", \"choices\": [\"a\", \"\"], \"answer\": 0}",
                           "{\"question\": \"q\", \"choices\": [\"a\", \"b\"], \"answer\": 0.5}"})
    EXPECT_THROW(read_multiple_choice(text, "f"), Error) << text;
}

TEST(MultipleChoice, ScoresAreMeansOverTheTokensOfAnEnding) {
  // every token costs ln(300), whatever it is and however many there are
  Engine blindly(blind(), {.threads = 1});
  const ChoiceTask task{"a", {"b", "c d", "c d e"}, 0};
  for (const double score : score_endings(blindly, task, 1)) EXPECT_NEAR(score, -std::log(300.0), 1e-4);
  // the same by hand
  Engine engine(load(test::tiny_llama()), {.threads = 1});
  const std::vector<double> scores = score_endings(engine, task, 1);
  const auto& tokenizer = *engine.model().tokenizer;
  for (size_t t = 0; t < task.endings.size(); ++t) {
    const std::vector<int32_t> text = tokenizer.encode(task.context + " " + task.endings[t]),
                               first = tokenizer.encode("a b"), second = tokenizer.encode("a c");
    size_t prefix = 0;
    while (first[prefix] == second[prefix]) ++prefix;
    std::vector<Row> rows;
    for (size_t i = 0; i < text.size(); ++i) rows.push_back({text[i], static_cast<int32_t>(i), 0, true});
    const std::span<const float> logits = engine.run(rows);
    double sum = 0;
    for (size_t i = prefix; i < text.size(); ++i) {
      const std::span<const float> row = logits.subspan((i - 1) * 300, 300);
      sum += double{row[text[i]]} - log_sum_exp(row);
    }
    EXPECT_NEAR(scores[t], sum / static_cast<double>(text.size() - prefix), 1e-5) << task.endings[t];
  }
}

TEST(MultipleChoice, DrawsEachTaskOnce) {
  std::vector<ChoiceTask> tasks;
  for (char c = 'a'; c <= 'z'; ++c) tasks.push_back({std::string(1, c), {"x", "y"}, 0});
  std::string drawn, some;
  for (const ChoiceTask& task : draw_tasks(tasks, 0)) drawn += task.context;
  for (const ChoiceTask& task : draw_tasks(tasks, 5)) some += task.context;
  EXPECT_EQ(drawn.substr(0, 5), some);
  EXPECT_NE(drawn, "abcdefghijklmnopqrstuvwxyz");
  std::sort(drawn.begin(), drawn.end());
  EXPECT_EQ(drawn, "abcdefghijklmnopqrstuvwxyz");
}

TEST(MultipleChoice, IntervalIsWilsons) {
  Engine blindly(blind(), {.threads = 1});
  // ties go to the first ending
  const std::vector<ChoiceTask> tasks = {{"a", {"b", "c"}, 0}, {"a", {"b", "c"}, 1}};
  const ChoiceResult result = score_choices(blindly, tasks);
  EXPECT_EQ(result.tasks, 2);
  EXPECT_NEAR(result.low + result.high, 1, 1e-12) << "half of them right: the interval is symmetric";
  EXPECT_NEAR(result.low, 0.0945, 1e-3);
}

}  // namespace
}  // namespace nibble::models
