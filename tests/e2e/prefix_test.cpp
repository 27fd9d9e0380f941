// SPDX-License-Identifier: Apache-2.0
// Prompts whose tokens see each other (PrefixRule), on the golden of ChatGLM-6B: its first 30 tokens do, token 30 ends
// them.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "jit/jit.h"
#include "models/decoder.h"
#include "models/generate.h"
#include "tensor/check.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/npy.h"

namespace nibble::models {
namespace {

constexpr int prefix = 30, end = 40;

std::vector<int32_t> tokens() { return test::read_npy<int32_t>(NIBBLE_TEST_DATA "/models/chatglm1.tokens.npy").data; }

/// With a tokenizer of words, which generating needs.
std::shared_ptr<const Model> model() {
  static const std::shared_ptr<const Model> loaded = [] {
    jit::register_kernels();
    const test::TempDir dir;
    std::filesystem::copy(NIBBLE_TEST_DATA "/models/chatglm1", dir / "model", std::filesystem::copy_options::recursive);
    std::string vocab;
    for (int i = 0; i < 48; ++i) vocab += message(i == 0 ? "" : ",", "\"t", i, "\":", i);
    test::write_file(dir / "model/tokenizer.json", R"({"model":{"type":"WordLevel","unk_token":"t0","vocab":{)" +
                                                       vocab + R"(}},"pre_tokenizer":{"type":"Whitespace"}})");
    return Model::load(dir / "model", {.threads = 1, .arch = {}, .progress = {}});
  }();
  return loaded;
}

std::vector<Row> rows(std::span<const int32_t> ids, int32_t first = 0) {
  std::vector<Row> result;
  for (size_t i = 0; i < ids.size(); ++i) result.push_back({ids[i], first + static_cast<int32_t>(i), 0, true});
  return result;
}

std::vector<float> run(Engine& engine, std::span<const Row> some) {
  const std::span<const float> logits = engine.run(some);
  return {logits.begin(), logits.end()};
}

TEST(Prefix, ItsTokensSeeLaterOnesAndThoseBehindItDoNot) {
  Engine engine(model(), {.threads = 1, .context = 96});
  std::vector<int32_t> ids = tokens();
  const std::vector<float> logits = run(engine, rows(ids));
  const auto row = [](const std::vector<float>& all, int i) {
    return std::vector<float>(all.begin() + i * 48, all.begin() + (i + 1) * 48);
  };
  ids[20] = (ids[20] + 1) % 40;
  EXPECT_NE(row(run(engine, rows(ids)), 3), row(logits, 3));
  ids = tokens();
  ids[50] = (ids[50] + 1) % 40;
  const std::vector<float> changed = run(engine, rows(ids));
  EXPECT_EQ(row(changed, 49), row(logits, 49));
  EXPECT_NE(row(changed, 50), row(logits, 50));
}

TEST(Prefix, RunsAsAWhole) {
  Engine engine(model(), {.threads = 1, .context = 96});
  const std::vector<int32_t> ids = tokens();
  const std::vector<Row> all = rows(ids);
  const auto message_of = [&](std::span<const Row> some) {
    try {
      engine.run(some);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_NE(message_of(std::span(all).first(prefix)).find("lacks token 40"), std::string::npos);
  const std::vector<float> whole = run(engine, all);
  EXPECT_NE(message_of(std::span(all).subspan(prefix - 1)).find("position 29"), std::string::npos);
  engine.truncate(0, prefix - 1);
  EXPECT_NE(message_of(std::span(all).subspan(prefix - 1)).find("position 29"), std::string::npos);
  EXPECT_EQ(run(engine, all), whole);
  engine.truncate(0, prefix);
  const std::vector<float> behind = run(engine, std::span(all).subspan(prefix));
  EXPECT_TRUE(std::equal(behind.begin(), behind.end(), whole.begin() + prefix * 48));
}

TEST(Prefix, IsSharedWholeOrNotAtAll) {
  Engine engine(model(), {.threads = 1, .context = 96, .sequences = 2});
  std::vector<Row> all = rows(tokens());
  const std::vector<float> whole = run(engine, all);
  for (Row& row : all) row.sequence = 1;
  engine.cache().share(0, 1, prefix - 1);
  EXPECT_THROW(engine.run(std::span(all).subspan(prefix - 1)), Error);
  engine.cache().share(0, 1, prefix);
  const std::vector<float> behind = run(engine, std::span(all).subspan(prefix));
  EXPECT_TRUE(std::equal(behind.begin(), behind.end(), whole.begin() + prefix * 48));
}

TEST(Prefix, NeedsAMark) {
  const PrefixRule rule{.end = 40, .mark = 41, .other_mark = 42};
  EXPECT_EQ(find_prefix(rule, std::vector<int32_t>{42, 1, 41, 40, 40}).tokens, 3);
  EXPECT_EQ(find_prefix(rule, std::vector<int32_t>{42, 1, 41, 40}).mark, 2);
  EXPECT_EQ(find_prefix(rule, std::vector<int32_t>{1, 42, 40, 41}).mark, 1);
  EXPECT_THROW(find_prefix(rule, std::vector<int32_t>{1, 2, 40, 41}), Error);
  EXPECT_EQ(find_prefix({}, std::vector<int32_t>{1, 2}).tokens, 0);
}

TEST(Prefix, SessionsReuseOnlyTheSame) {
  GenerateOptions options;
  options.sampler.temperature = 0;
  options.max_tokens = 8;
  options.ignore_eos = true;
  std::vector<int32_t> prompt = tokens();
  prompt.resize(prefix + 4);
  ASSERT_EQ(prompt[prefix], end);
  Engine small(model(), {.threads = 1, .context = 96, .chunk = 8}), big(model(), {.threads = 1, .context = 96});
  Session session(small), fresh(big);
  const GenerateResult first = session.generate(prompt, options);
  EXPECT_EQ(first.tokens, fresh.generate(prompt, options).tokens) << "a chunk is shorter than the prefix";
  const GenerateResult again = session.generate(prompt, options);
  EXPECT_EQ(again.reused_tokens, prefix + 3);
  EXPECT_EQ(again.tokens, first.tokens);
  prompt[5] = (prompt[5] + 1) % 40;
  const GenerateResult other = session.generate(prompt, options);
  EXPECT_EQ(other.reused_tokens, 0);
  EXPECT_EQ(other.tokens, Session(big).generate(prompt, options).tokens);
}

}  // namespace
}  // namespace nibble::models
