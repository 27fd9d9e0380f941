// SPDX-License-Identifier: Apache-2.0
// A trained model against what llama.cpp computed from the same file: greedy texts, logits, perplexity, node values.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "jit/jit.h"
#include "models/generate.h"
#include "models/multiple_choice.h"
#include "models/perplexity.h"
#include "tensor/check.h"

namespace nibble::models {
namespace {

const std::string data = NIBBLE_SOURCE_DIR "/../shared/data";

std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream all;
  all << in.rdbuf();
  return all.str();
}

class Stories : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(data + "/models/stories260K")) GTEST_SKIP() << data << " is not here";
    jit::register_kernels();
    model_ = Model::load(data + "/models/stories260K/stories260K.gguf");
  }
  std::shared_ptr<const Model> model_;
};

TEST_F(Stories, GreedyTextsAreThoseOfLlamaCpp) {
  const auto json = nlohmann::json::parse(read_text(data + "/models/stories260K/ref/greedy.json"));
  Engine engine(model_, {});
  Session session(engine);
  GenerateOptions options;
  options.sampler.temperature = 0;
  options.max_tokens = 64;
  ASSERT_EQ(json["cases"].size(), 12u);
  size_t left = max_isa() == Isa::generic ? 2 : 12;  // references are slow
  for (const auto& test : json["cases"]) {
    if (left-- == 0) break;
    const std::vector<int32_t> prompt = model_->tokenizer->encode(test["prompt"].get<std::string>());
    EXPECT_EQ(prompt, test["prompt_ids"].get<std::vector<int32_t>>());
    // the reference prints prompt and answer without dropping SentencePiece's first space
    std::string text;
    for (int32_t token : prompt) text += model_->tokenizer->piece(token);
    EXPECT_EQ(text + session.generate(prompt, options).text, test["text"].get<std::string>());
  }
}

TEST_F(Stories, PerplexityIsThatOfLlamaCpp) {
  std::string reference = read_text(data + "/models/stories260K/ref/ppl_wiki_test_c128.txt");
  std::vector<double> running;
  for (size_t at = reference.find(']'); at != std::string::npos; at = reference.find(']', at + 1))
    running.push_back(std::strtod(reference.c_str() + at + 1, nullptr));
  ASSERT_EQ(running.size(), 200u);
  // references are slow: a few chunks are enough for them
  const int chunks = max_isa() == Isa::generic ? 5 : max_isa() == Isa::avx2 ? 200 : 3;
  const std::vector<int32_t> tokens = model_->tokenizer->encode(read_text(data + "/text/wiki.test.raw"),
                                                                {.add_bos = true, .parse_special = false});
  Engine engine(model_, {.context = 128, .chunk = 128});
  const PerplexityResult result = perplexity(engine, tokens, 128, chunks, [&](int chunk, double value) {
    EXPECT_NEAR(value, running[chunk - 1], 1e-3 * running[chunk - 1]) << "after chunk " << chunk;
  });
  EXPECT_EQ(result.chunks, chunks);
  if (chunks == 200) {
    EXPECT_NEAR(result.perplexity, 119.6774, 0.12);
    EXPECT_NEAR(result.standard_error, 4.18112, 0.01);
  }
}

TEST_F(Stories, DivergenceFromLlamaCppsLogitsIsTheirRounding) {
  if (max_isa() != Isa::avx2) GTEST_SKIP() << "all instruction sets give the same bits";
  const LogitsFile base(data + "/models/stories260K/ref/wiki_test_c128_40chunks.kld");
  Engine engine(model_, {.context = 128, .chunk = 128});
  const DivergenceResult result = compare_logits(engine, base, -1);
  EXPECT_EQ(result.divergences.size(), 40u * 63u);
  EXPECT_LT(std::abs(result.divergence.value), 1e-5);
  EXPECT_GT(result.same_top.value, 0.998);
  EXPECT_LT(result.rms_change.value, 1e-3);
}

TEST_F(Stories, HellaSwagIsThatOfLlamaCpp) {
  if (max_isa() != Isa::avx2) GTEST_SKIP() << "all instruction sets give the same bits";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(
      popen(("bzip2 -dc '" + data + "/text/hellaswag_val_full.txt.bz2'").c_str(), "r"), pclose);
  std::string text(8 << 20, '\0');
  text.resize(pipe == nullptr ? 0 : fread(text.data(), 1, text.size(), pipe.get()));
  if (text.empty()) GTEST_SKIP() << "bzip2 is not here";
  const std::vector<ChoiceTask> tasks = draw_tasks(read_hellaswag(text, "hellaswag"), 100);
  std::istringstream reference(read_text(data + "/models/stories260K/ref/hellaswag_100.txt"));
  Engine engine(model_, {.context = 512});
  score_choices(engine, tasks, [&](const ChoiceResult& result) {
    int number = 0;
    double accuracy = 0;
    reference >> number >> accuracy;
    EXPECT_EQ(result.tasks, number);
    EXPECT_NEAR(100 * result.accuracy, accuracy, 1e-6) << "after task " << number;
  });
}

/// Log-probabilities of 40 chunks as llama.cpp stored them: log p = scale * u + min, floored 16 below the highest.
TEST_F(Stories, LogProbabilitiesAreThoseOfLlamaCpp) {
  const std::string file = read_text(data + "/models/stories260K/ref/wiki_test_c128_40chunks.kld");
  ASSERT_EQ(file.substr(0, 8), "_logits_");
  const char* at = file.data() + 8;
  const auto take = [&]<class T>(T& value) {
    std::memcpy(&value, at, sizeof(value));
    at += sizeof(value);
  };
  int32_t context = 0, vocab = 0, chunks = 0;
  take(context), take(vocab), take(chunks);
  ASSERT_EQ(vocab, model_->config.vocab);
  std::vector<int32_t> tokens(static_cast<size_t>(context) * static_cast<size_t>(chunks));
  for (int32_t& token : tokens) take(token);
  const int scored = context - 1 - context / 2;
  Engine engine(model_, {.context = context, .chunk = 128});
  double difference = 0, divergence = 0;
  int64_t values = 0, rows_scored = 0, same_top = 0;
  for (int chunk = 0; chunk < (max_isa() == Isa::avx2 ? chunks : 2); ++chunk) {
    std::vector<Row> rows;
    for (int i = 0; i < context; ++i)
      rows.push_back({tokens[chunk * context + i], i, 0, i >= context / 2 && i < context / 2 + scored});
    rows[0].token = model_->tokenizer->bos();
    const std::span<const float> logits = engine.run(rows);
    for (int row = 0; row < scored; ++row) {
      float scale = 0, low = 0;
      take(scale), take(low);
      const std::span<const float> mine = logits.subspan(static_cast<size_t>(row) * vocab, vocab);
      double sum = 0;
      for (float logit : mine) sum += std::exp(double{logit});
      std::vector<double> theirs(static_cast<size_t>(vocab));
      for (int i = 0; i < vocab; ++i) {
        uint16_t code = 0;
        take(code);
        theirs[i] = double{scale} * code + double{low};
        if (code == 0) continue;  // floored
        const double apart = theirs[i] - (double{mine[i]} - std::log(sum));
        difference += std::abs(apart);
        divergence += std::exp(theirs[i]) * apart;
        ++values;
      }
      ++rows_scored;
      same_top += std::max_element(theirs.begin(), theirs.end()) - theirs.begin() ==
                  std::max_element(mine.begin(), mine.end()) - mine.begin();
      if (vocab % 2 != 0) at += 2;
    }
  }
  // The file's 16 bits over a range of 16 give 2.5e-4; both sides keep keys and values in f16, and llama.cpp rounds
  // queries and probabilities to f16 too: 2^-11 of scores and logits of about 10.
  EXPECT_LT(difference / static_cast<double>(values), 5e-3);
  EXPECT_LT(std::abs(divergence) / static_cast<double>(rows_scored), 1e-5);
  EXPECT_LE(rows_scored - same_top, 1 + rows_scored / 500);  // near ties
  RecordProperty("mean_difference", std::to_string(difference / static_cast<double>(values)));
  RecordProperty("divergence", message(divergence / static_cast<double>(rows_scored)));
  RecordProperty("other_top", std::to_string(rows_scored - same_top) + " of " + std::to_string(rows_scored));
}

struct Corner {
  std::string node;
  std::vector<double> first, last;  // of the last row that is printed
};

/// What llama.cpp's eval-callback printed of one node.
Corner read_corner(const std::string& trace, const std::string& node) {
  Corner corner{node, {}, {}};
  const size_t begin = trace.find(node + " = (f32)");
  const size_t end = trace.find("sum = ", begin);
  const size_t row = trace.rfind("[ ", trace.rfind("],", end));
  const char* at = trace.c_str() + row + 1;
  for (int i = 0; i < 3; ++i) {
    char* next = nullptr;
    corner.first.push_back(std::strtod(at, &next));
    at = next + 1;
  }
  at = trace.c_str() + trace.find("...,", row) + 4;
  for (int i = 0; i < 3; ++i) {
    char* next = nullptr;
    corner.last.push_back(std::strtod(at, &next));
    at = next + 1;
  }
  return corner;
}

void expect_logits(const std::shared_ptr<const Model>& model, const std::string& prompt, const std::string& trace_file,
                   double bound) {
  const Corner corner = read_corner(read_text(trace_file), "result_output");
  Engine engine(model, {});
  const std::vector<int32_t> tokens = model->tokenizer->encode(prompt);
  std::vector<Row> rows;
  for (size_t i = 0; i < tokens.size(); ++i)
    rows.push_back({tokens[i], static_cast<int32_t>(i), 0, i + 1 == tokens.size()});
  const std::span<const float> logits = engine.run(rows);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(logits[i], corner.first[i], bound) << i;
    EXPECT_NEAR(logits[logits.size() - 3 + i], corner.last[i], bound) << "last " << 3 - i;
  }
}

TEST_F(Stories, LogitsOfAPromptAreThoseOfLlamaCpp) {
  expect_logits(model_, "Once upon a time", data + "/models/stories260K/ref/evalcb_once-upon-a-time.txt", 0.01);
}

TEST_F(Stories, TinyRandomLlama2LogitsAreThoseOfLlamaCpp) {
  const std::string folder = data + "/models/llama-2-tiny-random";
  expect_logits(Model::load(folder + "/llama-2-tiny-random.gguf"), "Hello world", folder + "/ref/evalcb_hello.txt",
                5e-4);
}

}  // namespace
}  // namespace nibble::models
