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
#include "models/catalog.h"
#include "models/decoder.h"
#include "tensor/check.h"
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
  RecordProperty("error_over_1e_6_of_range",
                 std::to_string(1e6f * std::abs(got[worst] - golden.logits[worst]) / (*high - *low)));
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
  // where tokens see each other they run together, with the token that ends them; else the first token alone
  const auto together = [&](int s) {
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < prompt; ++i) tokens.push_back(token(s, i));
    return static_cast<size_t>(find_prefix(golden.model->config.prefix, tokens).tokens) + 1;
  };
  std::vector<std::vector<float>> singles(4);
  for (int s = 0; s < 4; ++s) {
    Engine engine(golden.model, {.threads = 1, .context = 64});
    for (size_t i = 0, end = together(s); i < prompt + steps; i = end++) {
      std::vector<Row> row;
      for (size_t j = i; j < end; ++j) row.push_back({token(s, j), static_cast<int32_t>(j), 0, true});
      const std::vector<float> logits = run(engine, row);
      singles[s].insert(singles[s].end(), logits.begin(), logits.end());
    }
  }
  Engine engine(golden.model, {.threads = 2, .context = 64, .sequences = 4, .chunk = 50});
  std::vector<Row> rows;
  for (int s = 0; s < 4; ++s)
    for (size_t i = 0; i < prompt; ++i) rows.push_back({token(s, i), static_cast<int32_t>(i), s, true});
  const std::vector<float> prompts = run(engine, rows);
  for (int s = 0; s < 4; ++s)
    EXPECT_TRUE(
        std::equal(singles[s].begin(), singles[s].begin() + prompt * vocab, prompts.begin() + s * prompt * vocab))
        << "prompt of sequence " << s;
  for (size_t i = prompt; i < prompt + steps; ++i) {
    rows.clear();
    for (int s = 0; s < 4; ++s) rows.push_back({token(s, i), static_cast<int32_t>(i), s, true});
    const std::vector<float> logits = run(engine, rows);
    for (int s = 0; s < 4; ++s)
      EXPECT_TRUE(
          std::equal(logits.begin() + s * vocab, logits.begin() + (s + 1) * vocab, singles[s].begin() + i * vocab))
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

TEST_P(Goldens, NoNodeRunsAReference) {
  if (!usable(Isa::avx2)) GTEST_SKIP() << "kernels are capped below avx2";
  const Golden golden(GetParam());
  for (DType cache : {DType::f16, DType::i8}) {
    Engine engine(golden.model, {.threads = 2, .context = golden.context, .cache = cache, .max_isa = Isa::avx2});
    for (int rows : {1, 19})
      for (const Plan::StepName& step : engine.plan(rows, 1).steps())
        EXPECT_NE(step.kernel, "reference") << rows << " rows: " << step.node << " (" << step.op << ")";
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Goldens, testing::ValuesIn(goldens()), [](const auto& test) {
  std::string name = test.param;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
});

TEST(Archs, EachHasAGolden) {
  std::set<std::string_view> files, folders;
  for (const std::string& name : goldens())
    (name.ends_with(".gguf") ? files : folders).insert(Golden(name).model->arch->name);
  for (const Arch& arch : all_archs()) {
    const Sources from = sources(arch);
    EXPECT_TRUE(from.gguf || from.folder) << arch.name;
    EXPECT_EQ(from.folder, folders.contains(arch.name)) << arch.name << ": add it to tests/data/model_goldens.py";
    // Files of a variant may say that they are of its base.
    const bool file = files.contains(arch.name), bases = files.contains(arch.base);
    EXPECT_TRUE(from.gguf ? file || bases : !file) << arch.name << ": add it to tests/data/model_goldens.py";
  }
}

TEST(Archs, LearnedPositionsEndTheContext) {
  for (const char* name : {"gpt2", "opt", "starcoder"}) {
    const Golden golden(name);
    Engine engine(golden.model, {.threads = 1, .context = 128});
    try {
      Engine longer(golden.model, {.threads = 1, .context = 129});
      ADD_FAILURE() << name << " has learned 128 positions";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("at most 128"), std::string::npos) << error.what();
    }
  }
}

TEST(Archs, NumbersThatAFileLeavesOutCanBeSet) {
  const auto scale = [](const std::string& assignment) {
    return Model::load(golden_folder() + "/gemma2.gguf",
                       {.threads = 1, .need_tokenizer = false, .arch = {}, .progress = {}, .set = {assignment}})
        ->config.attention_scale;
  };
  EXPECT_EQ(scale("attention.scale=0.125"), 0.125f);
  EXPECT_EQ(scale("gemma2.attention.scale=0.125"), 0.125f);
  EXPECT_EQ(scale("attention.sliding_window=9"), 0.25f) << "heads of 16";
  EXPECT_THROW(scale("attention.scale=x"), Error);
  EXPECT_THROW(scale("attention.scale"), Error);
  EXPECT_THROW(scale("attention.scales=0.125"), Error) << "a key that nobody reads";
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
