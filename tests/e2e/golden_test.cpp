// SPDX-License-Identifier: Apache-2.0
// Every architecture against the logits that Hugging Face transformers gave for tiny random models
// (tests/data/make_model_goldens.py), and the promise that no split of the work changes a bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "jit/jit.h"
#include "models/arch.h"
#include "models/decoder.h"
#include "tests/support/allocations.h"
#include "tests/support/npy.h"

namespace nibble::models {
namespace {

std::string golden_folder() {
  const char* other = std::getenv("NIBBLE_MODEL_GOLDENS");
  return other != nullptr ? other : NIBBLE_TEST_DATA "/models";
}

/// "gpt2.gguf" and "gpt2", the folder, for every golden.
std::vector<std::string> goldens() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(golden_folder()))
    if (entry.is_directory() || entry.path().extension() == ".gguf") names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

struct Golden {
  std::shared_ptr<const Model> model;
  std::vector<int32_t> tokens;
  std::vector<float> logits;  // (tokens, vocab)
  int context;

  explicit Golden(const std::string& name) {
    jit::register_kernels();
    const std::string path = golden_folder() + "/" + name, stem = path.substr(0, path.find(".gguf"));
    model = Model::load(path, {.threads = 1, .need_tokenizer = false, .arch = {}, .progress = {}});
    tokens = test::read_npy<int32_t>(stem + ".tokens.npy").data;
    logits = test::read_npy<float>(stem + ".logits.npy").data;
    // 32 tokens are those of a model whose rope depends on the context, made for its short one
    context = tokens.size() > 32 ? 96 : 32;
  }
};

std::vector<Row> rows_of(const Golden& golden, int sequence) {
  std::vector<Row> rows;
  for (size_t i = 0; i < golden.tokens.size(); ++i)
    rows.push_back({golden.tokens[i], static_cast<int32_t>(i), sequence, true});
  return rows;
}

std::vector<float> run(Engine& engine, std::span<const Row> rows) {
  const std::span<const float> logits = engine.run(rows);
  return {logits.begin(), logits.end()};
}

/// All logits, with the prompt cut into pieces of `chunk` rows.
std::vector<float> run_whole(const Golden& golden, int threads, int chunk, DType cache = DType::f16) {
  Engine engine(golden.model, {.threads = threads, .context = golden.context, .chunk = chunk, .cache = cache});
  return run(engine, rows_of(golden, 0));
}

class Goldens : public testing::TestWithParam<std::string> {};

TEST_P(Goldens, LogitsMatchTransformers) {
  const Golden golden(GetParam());
  const std::vector<float> got = run_whole(golden, 1, 512, DType::f32);
  ASSERT_EQ(got.size(), golden.logits.size());
  const auto [low, high] = std::minmax_element(golden.logits.begin(), golden.logits.end());
  // keys and values are in f32: what is left are sums of floats in another order
  const float bound = 1e-5f * (*high - *low);
  size_t worst = 0;
  for (size_t i = 0; i < got.size(); ++i)
    if (!(std::abs(got[i] - golden.logits[i]) <= std::abs(got[worst] - golden.logits[worst]))) worst = i;
  RecordProperty("error_over_1e_6_of_range", std::to_string(1e6f * std::abs(got[worst] - golden.logits[worst]) / (*high - *low)));
  EXPECT_LE(std::abs(got[worst] - golden.logits[worst]), bound)
      << "row " << worst / golden.model->config.vocab << ", token " << worst % golden.model->config.vocab << ": got "
      << got[worst] << ", transformers " << golden.logits[worst];
}

TEST_P(Goldens, ChunksAndThreadsChangeNoBit) {
  const Golden golden(GetParam());
  const std::vector<float> whole = run_whole(golden, 1, 512);
  for (int threads : {1, 2})
    for (int chunk : {1, 7, 64, 512})
      EXPECT_EQ(whole, run_whole(golden, threads, chunk)) << threads << " threads, chunks of " << chunk;
}

TEST_P(Goldens, BatchOfFourIsFourSingles) {
  const Golden golden(GetParam());
  if (golden.context < 96) GTEST_SKIP() << "too few tokens";
  const auto vocab = static_cast<size_t>(golden.model->config.vocab);
  // sequence s runs the prompt from its token s on
  const auto token = [&](int sequence, size_t i) { return golden.tokens[(i + sequence) % golden.tokens.size()]; };
  constexpr size_t prompt = 33, steps = 5;
  std::vector<std::vector<float>> singles(4);
  for (int s = 0; s < 4; ++s) {
    Engine engine(golden.model, {.threads = 1, .context = 64});
    for (size_t i = 0; i < prompt + steps; ++i) {
      const Row row{token(s, i), static_cast<int32_t>(i), 0, true};
      const std::vector<float> logits = run(engine, {&row, 1});
      singles[s].insert(singles[s].end(), logits.begin(), logits.end());
    }
  }
  Engine engine(golden.model, {.threads = 2, .context = 64, .sequences = 4, .chunk = 50});
  std::vector<Row> rows;
  for (int s = 0; s < 4; ++s)
    for (size_t i = 0; i < prompt; ++i) rows.push_back({token(s, i), static_cast<int32_t>(i), s, true});
  const std::vector<float> prompts = run(engine, rows);
  for (int s = 0; s < 4; ++s)
    EXPECT_TRUE(std::equal(singles[s].begin(), singles[s].begin() + prompt * vocab, prompts.begin() + s * prompt * vocab))
        << "prompt of sequence " << s;
  for (size_t i = prompt; i < prompt + steps; ++i) {
    rows.clear();
    for (int s = 0; s < 4; ++s) rows.push_back({token(s, i), static_cast<int32_t>(i), s, true});
    const std::vector<float> logits = run(engine, rows);
    for (int s = 0; s < 4; ++s)
      EXPECT_TRUE(std::equal(logits.begin() + s * vocab, logits.begin() + (s + 1) * vocab, singles[s].begin() + i * vocab))
          << "step " << i << " of sequence " << s;
  }
}

TEST_P(Goldens, LogitsOfSomeRowsAreThoseOfAllRows) {
  const Golden golden(GetParam());
  if (golden.context < 96) GTEST_SKIP() << "too few tokens";
  const auto vocab = static_cast<size_t>(golden.model->config.vocab);
  const std::vector<float> whole = run_whole(golden, 1, 512);
  Engine engine(golden.model, {.threads = 1, .context = 96, .chunk = 16});
  std::vector<Row> rows = rows_of(golden, 0);
  for (size_t i = 0; i < rows.size(); ++i) rows[i].logits = i == 20 || i == 21 || i + 1 == rows.size();
  const std::vector<float> some = run(engine, rows);
  ASSERT_EQ(some.size(), 3 * vocab);
  size_t at = 0;
  for (size_t row : {size_t{20}, size_t{21}, rows.size() - 1}) {
    EXPECT_TRUE(std::equal(some.begin() + at, some.begin() + at + vocab, whole.begin() + row * vocab)) << "row " << row;
    at += vocab;
  }
}

TEST_P(Goldens, GoingBackRunsAgainWithTheSameBits) {
  const Golden golden(GetParam());
  if (golden.context < 96) GTEST_SKIP() << "too few tokens";
  const auto vocab = static_cast<size_t>(golden.model->config.vocab);
  Engine engine(golden.model, {.threads = 1, .context = 96, .sequences = 2});
  const std::vector<Row> rows = rows_of(golden, 0);
  const std::vector<float> whole = run(engine, rows);
  // another sequence borrows the first 40 positions, then both continue from there on their own
  engine.cache().share(0, 1, 40);
  std::vector<Row> others = {rows.begin() + 40, rows.end()};
  for (Row& row : others) row.sequence = 1, row.token = (row.token + 1) % golden.model->config.vocab;
  const std::vector<float> changed = run(engine, others);
  engine.truncate(0, 45);
  const std::vector<float> again = run(engine, std::span(rows).subspan(45));
  EXPECT_TRUE(std::equal(again.begin(), again.end(), whole.begin() + 45 * vocab));
  EXPECT_FALSE(std::equal(changed.begin(), changed.end(), whole.begin() + 40 * vocab));
}

TEST_P(Goldens, RunningAgainAllocatesNothing) {
  const Golden golden(GetParam());
  if (golden.context < 96) GTEST_SKIP() << "too few tokens";
  Engine engine(golden.model, {.threads = 2, .context = 96, .chunk = 16});
  const std::vector<Row> rows = rows_of(golden, 0);
  const auto prompt = std::span(rows).first(32), decode = std::span(rows).subspan(32);
  const auto run_all = [&] {
    engine.run(prompt);
    for (const Row& row : decode) engine.run({&row, 1});
  };
  run_all();  // compiles the plans and takes the cache's pages
  EXPECT_EQ(test::allocations_during(run_all), 0);
}

INSTANTIATE_TEST_SUITE_P(Models, Goldens, testing::ValuesIn(goldens()), [](const auto& test) {
  std::string name = test.param;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
});

TEST(Archs, EachHasAGolden) {
  std::set<std::string_view> proved;
  for (const std::string& name : goldens()) proved.insert(Golden(name).model->arch->name);
  for (const Arch& arch : all_archs())
    EXPECT_TRUE(proved.contains(arch.name)) << arch.name << ": add it to tests/data/model_goldens.py";
}

TEST(Archs, FileAndListAgree) {
  std::vector<std::string> files, listed;
  for (const auto& entry : std::filesystem::directory_iterator(NIBBLE_SOURCE_DIR "/models/arch"))
    if (entry.path().extension() == ".cpp") files.push_back(entry.path().stem().string());
  for (const Arch& arch : all_archs()) listed.emplace_back(arch.name);
  std::sort(files.begin(), files.end());
  std::sort(listed.begin(), listed.end());
  EXPECT_EQ(files, listed);
}

}  // namespace
}  // namespace nibble::models
