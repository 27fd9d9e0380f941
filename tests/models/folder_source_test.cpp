// SPDX-License-Identifier: Apache-2.0
// Hugging Face folders written as GGUF.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "models/decoder.h"
#include "models/io/gguf_writer.h"
#include "models/quantize_file.h"
#include "models/text/gguf_keys.h"
#include "models/text/tokenizer.h"
#include "tensor/check.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/npy.h"

namespace nibble::models {
namespace {

std::vector<float> logits_of(const std::string& path, const std::vector<int32_t>& tokens) {
  const auto model = Model::load(path, {.threads = 1, .need_tokenizer = false, .arch = {}, .progress = {}});
  Engine engine(model, {.threads = 1, .context = 32, .cache = DType::f32});
  std::vector<Row> rows;
  for (size_t i = 0; i < tokens.size(); ++i) rows.push_back({tokens[i], static_cast<int32_t>(i), 0, true});
  const auto logits = engine.run(rows);
  return {logits.begin(), logits.end()};
}

TEST(FolderSource, GivesTheLogitsOfTheFolder) {
  const std::string goldens = NIBBLE_TEST_DATA "/models/";
  for (const char* name : {"llama-3", "llama-linear", "llama-yarn", "llama-tied", "mistral", "qwen2", "qwen3", "gemma",
                           "gemma2", "gemma3"}) {
    const std::string folder = goldens + name;
    if (!std::filesystem::is_directory(folder)) continue;
    const test::TempDir dir;
    quantize_file(folder, dir / "model.gguf", {});
    auto tokens = test::read_npy<int32_t>(folder + ".tokens.npy").data;
    tokens.resize(std::min<size_t>(tokens.size(), 32));
    const auto want = logits_of(folder, tokens), got = logits_of(dir / "model.gguf", tokens);
    ASSERT_EQ(got.size(), want.size()) << name;
    const auto [low, high] = std::minmax_element(want.begin(), want.end());
    float worst = 0;
    for (size_t i = 0; i < got.size(); ++i) worst = std::max(worst, std::fabs(got[i] - want[i]));
    EXPECT_LT(worst, 1e-5f * (*high - *low)) << name;
  }
}

TEST(FolderSource, RefusesOtherArchitecturesByName) {
  const test::TempDir dir;
  try {
    quantize_file(NIBBLE_TEST_DATA "/models/cohere", dir / "model.gguf", {});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("architecture cohere can't be written"), std::string::npos)
        << error.what();
  }
}

void copy(const std::string& from, const std::string& to) { std::filesystem::copy_file(from, to); }

TEST(FolderSource, WritesTheTokenizer) {
  const std::string vocabularies = NIBBLE_SOURCE_DIR "/../shared/data/tokenizers/";
  if (!std::filesystem::exists(vocabularies)) GTEST_SKIP() << "no " << vocabularies;
  const std::vector<std::string> texts = {"Hello world", " It's 1234 o'clock,  isn't\n\n it?", "naïve café 日本語 🎉",
                                          "<s> </s> x"};
  struct Case {
    const char *kind, *files;
    int vocab;
  };
  for (const auto& [kind, files, vocab] : {Case{"llama", "llama-2", 32000}, Case{"gpt2", "qwen2-0_5b", 151936}}) {
    const test::TempDir dir;
    for (const auto& entry : std::filesystem::directory_iterator(vocabularies + files))
      copy(entry.path().string(), dir / entry.path().filename().string());
    if (!std::filesystem::exists(dir / "tokenizer.json") && !std::filesystem::exists(dir / "tokenizer.model")) continue;
    const auto keys = tokenizer_keys(dir.path(), vocab);
    const auto tokens =
        std::find_if(keys.begin(), keys.end(), [](const auto& k) { return k.first == "tokenizer.ggml.tokens"; });
    ASSERT_NE(tokens, keys.end());
    EXPECT_EQ(tokens->second.count, static_cast<uint64_t>(vocab));
    write_gguf(dir / "vocabulary.gguf", keys, {});
    const auto ours = Tokenizer::from_gguf(Gguf::open(dir / "vocabulary.gguf")),
               theirs = Tokenizer::load_folder(dir.path()).tokenizer;
    EXPECT_EQ(ours->kind(), kind);
    for (const std::string& text : texts) EXPECT_EQ(ours->encode(text), theirs->encode(text)) << text;
  }
}

}  // namespace
}  // namespace nibble::models
