// SPDX-License-Identifier: Apache-2.0
// Real vocabularies and the token ids that the models' own tokenizers gave. Skipped where the files are not at hand.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "models/io/gguf.h"
#include "models/text/tokenizer.h"
#include "tests/support/cpu_time.h"
#include "tests/support/gguf_writer.h"

namespace nibble::models {
namespace {

const std::string data = NIBBLE_SOURCE_DIR "/../shared/data/";
bool missing(const std::string& path) { return !std::filesystem::exists(path); }

std::vector<std::string> split(std::string_view text, std::string_view separator) {
  std::vector<std::string> out;
  for (size_t at; (at = text.find(separator)) != std::string_view::npos; text.remove_prefix(at + separator.size()))
    out.emplace_back(text.substr(0, at));
  out.emplace_back(text);
  return out;
}

std::vector<int32_t> numbers(const std::string& line) {
  std::string plain = line;
  std::replace(plain.begin(), plain.end(), ',', ' ');
  std::istringstream in(plain);
  std::vector<int32_t> out;
  for (int32_t id; in >> id;) out.push_back(id);
  return out;
}

std::string show(std::span<const int32_t> ids) {
  std::string out;
  for (int32_t id : ids) out += std::to_string(id) + " ";
  return out;
}

void check_pairs(const Tokenizer& tokenizer, const std::string& stem) {
  const auto texts = split(test::read_file(stem + ".inp"), "\n__ggml_vocab_test__\n");
  const auto lines = split(test::read_file(stem + ".out"), "\n");
  ASSERT_GE(lines.size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto ids = tokenizer.encode(texts[i], {.add_bos = false, .parse_special = false});
    EXPECT_EQ(show(ids), show(numbers(lines[i]))) << stem << " '" << texts[i] << "'";
    EXPECT_EQ(tokenizer.decode(ids), texts[i]) << stem;
  }
}

class TokenizerData : public testing::TestWithParam<const char*> {};
TEST_P(TokenizerData, MatchesItsTokenizer) {
  const std::string stem = data + "vocab/ggml-vocab-" + GetParam() + ".gguf";
  if (missing(stem)) GTEST_SKIP() << stem << " is not here";
  check_pairs(*Tokenizer::from_gguf(Gguf::open(stem)), stem);
}
INSTANTIATE_TEST_SUITE_P(Vocabularies, TokenizerData,
                         testing::Values("llama-spm", "phi-3", "gpt-2", "falcon", "mpt", "starcoder"),
                         [](const auto& param) {
                           std::string name = param.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST(TokenizerDataQwen2, MatchesItsTokenizer) {
  const std::string folder = data + "tokenizers/qwen2-0_5b/", stem = data + "vocab/ggml-vocab-qwen2.gguf";
  if (missing(folder) || missing(stem + ".inp")) GTEST_SKIP() << folder << " is not here";
  const auto vocab = nlohmann::json::parse(test::read_file(folder + "vocab.json"));
  std::vector<std::string> tokens(vocab.size()), merges;
  for (const auto& [text, id] : vocab.items()) tokens.at(id.get<size_t>()) = text;
  for (const std::string& line : split(test::read_file(folder + "merges.txt"), "\n"))
    if (!line.empty() && !line.starts_with("#version")) merges.push_back(line);
  test::TempDir dir;
  test::GgufWriter writer;
  writer.str("tokenizer.ggml.model", "gpt2").str("tokenizer.ggml.pre", "qwen2").strs("tokenizer.ggml.tokens", tokens);
  writer.strs("tokenizer.ggml.merges", merges).save(dir / "qwen2.gguf");
  check_pairs(*Tokenizer::from_gguf(Gguf::open(dir / "qwen2.gguf")), stem);
}

struct Prompts {
  const char* file;
  const char* vocabulary;
};
class TokenizerPrompts : public testing::TestWithParam<Prompts> {};
TEST_P(TokenizerPrompts, MatchTheTokenizer) {
  const std::string prompts = data + "vocab/ggml-prompts/" + GetParam().file;
  const std::string vocabulary = data + "vocab/ggml-vocab-" + GetParam().vocabulary + ".gguf";
  if (missing(prompts) || missing(vocabulary)) GTEST_SKIP() << prompts << " or " << vocabulary << " is not here";
  const auto tokenizer = Tokenizer::from_gguf(Gguf::open(vocabulary));
  int checked = 0;
  for (const std::string& line : split(test::read_file(prompts), "\n")) {
    const size_t arrow = line.find(" => ");
    if (arrow == std::string::npos) continue;
    const auto ids = tokenizer->encode(line.substr(0, arrow), {.add_bos = false, .parse_special = false});
    EXPECT_EQ(show(ids), show(numbers(line.substr(arrow + 4)))) << line.substr(0, arrow);
    ++checked;
  }
  EXPECT_GT(checked, 0);
}
INSTANTIATE_TEST_SUITE_P(Files, TokenizerPrompts,
                         testing::Values(Prompts{"gpt-2.txt", "gpt-2"}, Prompts{"gpt-j.txt", "gpt-2"},
                                         Prompts{"gpt-neox.txt", "mpt"}, Prompts{"dolly-v2.txt", "mpt"}),
                         [](const auto& param) {
                           std::string name = param.param.file;
                           std::erase_if(name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); });
                           return name;
                         });

TEST(TokenizerDataStories, MatchesLlamaCpp) {
  const std::string folder = data + "models/stories260K/";
  if (missing(folder)) GTEST_SKIP() << folder << " is not here";
  const auto tokenizer = Tokenizer::from_gguf(Gguf::open(folder + "stories260K.gguf"));
  for (const auto& item : nlohmann::json::parse(test::read_file(folder + "ref/tokenize.json"))) {
    const std::string text = item.at("text");
    const auto ids = tokenizer->encode(text);
    EXPECT_EQ(show(ids), show(item.at("ids").get<std::vector<int32_t>>())) << "'" << text << "'";
    EXPECT_EQ(tokenizer->decode(ids), text);
  }
}

class TokenizerSpeed : public testing::TestWithParam<const char*> {};
TEST_P(TokenizerSpeed, LongTextsTakeLinearTime) {
  const std::string file = data + "vocab/ggml-vocab-" + GetParam() + ".gguf";
  if (missing(file) || missing(data + "text/wiki.test.raw")) GTEST_SKIP() << data << " is not here";
  const auto tokenizer = Tokenizer::from_gguf(Gguf::open(file));
  const std::string wiki = test::read_file(data + "text/wiki.test.raw"), some = wiki.substr(0, 1 << 20);
  std::string alternating;
  while (alternating.size() < 1 << 20) alternating += " \n";
  const std::pair<const char*, std::string> texts[] = {{"wiki", wiki},
                                                       {"a", std::string(1 << 20, 'a')},
                                                       {"spaces", std::string(1 << 20, ' ') + "x"},
                                                       {"newlines", std::string(1 << 20, '\n') + "x"},
                                                       {"alternating", alternating},
                                                       {"digits", std::string(1 << 20, '7')},
                                                       {"dots", std::string(1 << 20, '.')},
                                                       {"invalid", std::string(1 << 20, '\xFF')}};
  for (const auto& [name, text] : texts) {
    const double start = test::cpu_seconds();
    const auto ids = tokenizer->encode(text, {.add_bos = false, .parse_special = true});
    const double seconds = test::cpu_seconds() - start;
    std::printf("%-12s %-12s %8.1f MB/s, %zu tokens\n", GetParam(), name,
                1e-6 * static_cast<double>(text.size()) / std::max(seconds, 1e-6), ids.size());
    // A quadratic pass over a megabyte takes minutes; this bound leaves room for sanitizers.
    EXPECT_LT(seconds, 20) << name;
  }
}
INSTANTIATE_TEST_SUITE_P(Vocabularies, TokenizerSpeed, testing::Values("llama-spm", "gpt-2", "falcon", "starcoder"),
                         [](const auto& param) {
                           std::string name = param.param;
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace nibble::models
