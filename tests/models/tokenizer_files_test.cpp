// SPDX-License-Identifier: Apache-2.0
// Tokenizer files and folders: what they say is followed, and what is wrong with them is said with file and key.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "models/text/regex.h"
#include "models/text/tokenizer.h"
#include "models/text/unicode.h"
#include "tensor/check.h"
#include "tests/support/gguf_writer.h"

namespace nibble::models {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;
const std::string golden = NIBBLE_TEST_DATA "/tokenizers/";

void put(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

void expect_error(const std::string& path, std::initializer_list<const char*> parts) {
  try {
    Tokenizer::load(path);
    ADD_FAILURE() << path << ": no error";
  } catch (const Error& error) {
    const std::string what = error.what();
    for (const char* part : parts) EXPECT_NE(what.find(part), std::string::npos) << part << " in: " << what;
  }
}

json tiny() {
  return json::parse(R"({"added_tokens": [{"id": 3, "content": "<s>", "special": true}],
    "pre_tokenizer": null, "normalizer": null, "decoder": {"type": "Fuse"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})");
}

void expect_json_error(const json& spec, std::initializer_list<const char*> parts) {
  test::TempDir dir;
  put(dir / "tokenizer.json", spec.dump());
  expect_error(dir / "tokenizer.json", parts);
}

TEST(TokenizerFiles, BrokenJsonIsRefused) {
  test::TempDir dir;
  const std::string path = dir / "tokenizer.json";
  expect_error(path, {"tokenizer.json", "no such file"});
  for (const char* text : {"", "{", "[1]", "null", "{\"model\": 3}", "\xFF\xFE"}) {
    put(path, text);
    expect_error(path, {"tokenizer.json"});
  }
  put(path, std::string(100000, '['));
  expect_error(path, {"tokenizer.json"});
}

TEST(TokenizerFiles, WrongKeysAreNamed) {
  json spec = tiny();
  spec["model"]["merges"] = json::array({"a b", "a c"});
  expect_json_error(spec, {"model.merges", "merge 1", "'c'"});
  spec["model"]["merges"] = json::array({"ab"});
  expect_json_error(spec, {"model.merges", "merge 0"});
  spec["model"]["merges"] = json::array({json::array({"a", 3})});
  expect_json_error(spec, {"model.merges", "merge 0"});
  spec = tiny();
  spec["model"]["vocab"]["c"] = 4294967296;
  expect_json_error(spec, {"model.vocab", "'c'", "4294967296"});
  spec["model"]["vocab"]["c"] = -1;
  expect_json_error(spec, {"model.vocab", "'c'"});
  spec["model"]["vocab"]["c"] = 2;
  expect_json_error(spec, {"model.vocab", "both"});
  spec = tiny();
  spec["model"]["vocab"]["c"] = 10000000;  // holes for gigabytes
  expect_json_error(spec, {"model.vocab", "'c'", "10000000", "expected 0 to 65544"});
  spec = tiny();
  spec["added_tokens"][0]["id"] = 99999999;
  expect_json_error(spec, {"added_tokens[0].id"});
  spec = tiny();
  spec["model"]["type"] = "Magic";
  expect_json_error(spec, {"model", "Magic", "WordPiece"});
  spec = tiny();
  spec["model"]["unk_token"] = "zz";
  expect_json_error(spec, {"model.unk_token", "zz"});
  spec = tiny();
  spec["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}};
  expect_json_error(spec, {"pre_tokenizer.pattern.Regex", "(a"});
  spec["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "Sideways"}};
  expect_json_error(spec, {"pre_tokenizer.behavior", "Sideways"});
  spec["pre_tokenizer"] = {{"type", "Unheard"}};
  expect_json_error(spec, {"pre_tokenizer", "Unheard"});
  spec = tiny();
  spec["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", "AAAA////"}};
  expect_json_error(spec, {"normalizer.precompiled_charsmap"});
  spec["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", "?"}};
  expect_json_error(spec, {"normalizer.precompiled_charsmap", "base64"});
  spec = tiny();
  spec["post_processor"] = {{"type", "BertProcessing"}, {"cls", {"x", 77}}, {"sep", {"x", 0}}};
  expect_json_error(spec, {"post_processor.cls[1]"});
  json deep = {{"type", "Lowercase"}};
  for (int i = 0; i < 40; ++i) deep = {{"type", "Sequence"}, {"normalizers", {deep}}};
  spec = tiny();
  spec["normalizer"] = deep;
  expect_json_error(spec, {"nested"});
}

TEST(TokenizerFiles, PatternsThatBacktrackEndInAnError) {
  json spec = tiny();
  spec["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "(?:a+a+)+cd"}}}, {"behavior", "Isolated"}};
  test::TempDir dir;
  put(dir / "tokenizer.json", spec.dump());
  const auto tokenizer = Tokenizer::load(dir / "tokenizer.json");
  EXPECT_EQ(tokenizer->encode("ab"), (Ids{2}));
  EXPECT_THROW(tokenizer->encode(std::string(200, 'a') + "-cd"), Error);
}

TEST(TokenizerFiles, ModelsOfSentencePieceAreReadWithCare) {
  const std::string good = test::read_file(golden + "sp_bpe.model");
  test::TempDir dir;
  const std::string path = dir / "tokenizer.model";
  for (size_t cut = 0; cut < good.size(); cut += 97) {
    put(path, good.substr(0, cut));
    try {
      Tokenizer::load(path)->encode("abc");
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("tokenizer.model"), std::string::npos) << error.what();
    }
  }
  uint32_t state = 7;
  for (int i = 0; i < 300; ++i) {
    std::string bad = good;
    for (int k = 0; k < 3; ++k) {
      state = state * 1664525 + 1013904223;
      bad[(state >> 4) % bad.size()] = static_cast<char>(state >> 24);
    }
    put(path, bad);
    try {
      Tokenizer::load(path)->encode("a word \xE4\xBD\xA0 ");
    } catch (const Error&) {
    }
  }
}

TEST(TokenizerFiles, FoldersSayWhatGoesAround) {
  test::TempDir dir;
  put(dir / "tokenizer.json", tiny().dump());
  EXPECT_EQ(Tokenizer::load(dir.path())->encode("ab"), (Ids{2}));
  put(dir / "tokenizer_config.json", R"({"bos_token": {"content": "<s>"}, "add_bos_token": true, "chat_template":
      [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]})");
  put(dir / "generation_config.json", R"({"eos_token_id": [3, 1]})");
  TextFolder folder = Tokenizer::load_folder(dir.path());
  EXPECT_EQ(folder.tokenizer->encode("ab<s>"), (Ids{3, 2, 3}));
  EXPECT_EQ(folder.tokenizer->bos(), 3);
  EXPECT_TRUE(folder.tokenizer->is_end(1));
  EXPECT_FALSE(folder.tokenizer->is_end(0));
  EXPECT_EQ(folder.chat_template, "D");
  ASSERT_EQ(folder.chat_templates.size(), 1u);
  EXPECT_EQ(folder.chat_templates[0], (std::pair<std::string, std::string>("tool_use", "T")));
  put(dir / "chat_template.jinja", "J");
  EXPECT_EQ(Tokenizer::load_folder(dir.path()).chat_template, "J");
  put(dir / "tokenizer_config.json", R"({"add_bos_token": "yes"})");
  expect_error(dir.path(), {"tokenizer_config.json", "add_bos_token"});
  test::TempDir empty;
  expect_error(empty.path(), {"no tokenizer.json"});
}

TEST(TokenizerFiles, RanksAreReadFromBase64) {
  test::TempDir dir;
  std::string lines;
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t byte = 0; byte < 256; ++byte)
    lines += std::string{digits[byte >> 2], digits[(byte & 3) << 4]} + "== " + std::to_string(byte) + "\n";
  lines += "YWI= 256\nYWJj 257\nIGFi 258\n";  // ab, abc, " ab"
  put(dir / "my.tiktoken", lines);
  const auto tokenizer = Tokenizer::load(dir / "my.tiktoken");
  EXPECT_EQ(tokenizer->encode("abc ab\xFF"), (Ids{257, 258, 255}));
  EXPECT_EQ(tokenizer->decode(Ids{257, 258, 255}), "abc ab\xFF");
  put(dir / "my.tiktoken", lines + "YWI= 256\n");
  expect_error(dir / "my.tiktoken", {"my.tiktoken", "line 260", "256"});
  put(dir / "my.tiktoken", lines + "??? 259\n");
  expect_error(dir / "my.tiktoken", {"line 260", "base64"});
  put(dir / "my.tiktoken", lines + "YWJjZA== 9999999\n");
  expect_error(dir / "my.tiktoken", {"line 260", "a rank below"});
  put(dir / "my.tiktoken", lines + "YQ== 300\n");
  expect_error(dir / "my.tiktoken", {"rank 259", "missing"});
}

TEST(TokenizerFiles, Gpt2FilesAreReadTogether) {
  test::TempDir dir;
  put(dir / "vocab.json", R"({"a": 0, "b": 1, "ab": 2, "\u0120": 3, "\u0120a": 4})");
  put(dir / "merges.txt", "#version: 0.2\na b\n\xC4\xA0 a\n");
  const auto tokenizer = Tokenizer::load(dir.path());
  EXPECT_EQ(tokenizer->encode("ab a b"), (Ids{2, 4, 3, 1}));
  EXPECT_EQ(tokenizer->decode(Ids{2, 4, 3, 1}), "ab a b");
  put(dir / "merges.txt", "a c\n");
  expect_error(dir.path(), {"merges.txt", "line 1", "a c"});
}

TEST(TokenizerFiles, ControlTokensStayTextInPlainRangesHoweverTheyAreFound) {
  for (bool normalized : {false, true}) {
    json spec = tiny();
    spec["added_tokens"][0]["normalized"] = normalized;
    spec["normalizer"] = {{"type", "Lowercase"}};
    test::TempDir dir;
    put(dir / "tokenizer.json", spec.dump());
    const auto tokenizer = Tokenizer::load(dir / "tokenizer.json");
    EXPECT_EQ(tokenizer->encode("a<s>b"), (Ids{0, 3, 1}));
    const std::vector<TextRange> plain = {{1, 4}};
    EXPECT_EQ(tokenizer->encode("a<s>b<s>", {.add_bos = false, .parse_special = true, .plain = plain}), (Ids{2, 3}))
        << "the characters of the plain one are unknown";
  }
}

TEST(Regex, FollowsTheSyntaxOfTheFiles) {
  RegexScan scan;
  const auto first = [&](const char* pattern, std::string_view text) {
    RegexScan::Match match{};
    return scan.find(Regex(pattern), text, 0, match) ? std::string(text.substr(match.begin, match.end - match.begin))
                                                     : "-";
  };
  EXPECT_EQ(first("[a-z&&[^aeiou]]+", "aeixyz"), "xyz");
  EXPECT_EQ(first("\\p{N}{1,3}+", "1234567"), "1234567");
  EXPECT_EQ(first("[^\\p{L}\\s]+", "ab 12"), "12");
  EXPECT_EQ(first("\\u4F60", "\xE4\xBD\xA0"), "\xE4\xBD\xA0");
  EXPECT_EQ(first("\\h+", "xyz beef"), "beef");
  EXPECT_EQ(first("^b$", "a\nb\nc"), "b");
  EXPECT_EQ(first("\\s", "\xE1\xA0\x8E"), "-");
  EXPECT_EQ(first("(?i:LL)", "ll"), "ll");
  EXPECT_EQ(first("[]a]", "]"), "]");
  for (const char* bad : {"[", "(", "a\\", "[[:alpha", "\\p{Nonsense}", "\\C", "(?<=a\\K)"})
    EXPECT_THROW(Regex{bad}, Error) << bad;
}

TEST(Unicode, NormalFormsComposeDecomposeAndSort) {
  const std::string e_acute = "\xC3\xA9", decomposed = "e\xCC\x81";
  EXPECT_EQ(normal_form(decomposed, NormalForm::nfc), e_acute);
  EXPECT_EQ(normal_form("x" + e_acute + "y", NormalForm::nfd), "x" + decomposed + "y");
  EXPECT_EQ(normal_form("\xEF\xAC\x81\xC2\xBD", NormalForm::nfkc), "fi1\xE2\x81\x84"
                                                                    "2");
  EXPECT_EQ(normal_form("a\xCC\x81\xCC\xA3", NormalForm::nfd), "a\xCC\xA3\xCC\x81") << "marks below come first";
  EXPECT_EQ(normal_form("\xE1\x84\x80\xE1\x85\xA1", NormalForm::nfc), "\xEA\xB0\x80") << "Hangul";
  EXPECT_EQ(normal_form("\xFF" + decomposed + "\xC3", NormalForm::nfc), "\xFF" + e_acute + "\xC3");
}

}  // namespace
}  // namespace nibble::models
