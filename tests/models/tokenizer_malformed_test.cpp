// SPDX-License-Identifier: Apache-2.0
// Vocabularies that no tokenizer can use: each must say which file and which key is wrong.
#include <gtest/gtest.h>

#include <cmath>

#include "tensor/check.h"
#include "tests/models/tiny_vocabulary.h"

namespace nibble::models {
namespace {

using test::GgufWriter;

void expect_error(const GgufWriter& writer, std::initializer_list<const char*> parts) {
  try {
    load(writer);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("tiny.gguf"), std::string::npos) << what;
    for (const char* part : parts) EXPECT_NE(what.find(part), std::string::npos) << part << " in: " << what;
  }
}

GgufWriter spm() { return tiny_spm().writer("llama"); }
GgufWriter bpe(const TinyVocabulary& v) { return v.writer("gpt2").str("tokenizer.ggml.pre", "gpt-2"); }

/// The file with one key replaced by what `with` writes under it, or taken out.
GgufWriter without(GgufWriter writer, std::string_view key) {
  std::erase_if(writer.values, [&](const GgufWriter::Value& value) { return value.key == key; });
  return writer;
}

TEST(TokenizerMalformed, KindsAndKeysMustBeThere) {
  expect_error(without(spm(), "tokenizer.ggml.model"), {"tokenizer.ggml.model", "missing"});
  expect_error(without(spm(), "tokenizer.ggml.model").str("tokenizer.ggml.model", "plamo2"),
               {"'plamo2'", "llama", "gpt2"});
  expect_error(without(spm(), "tokenizer.ggml.model").u32("tokenizer.ggml.model", 1),
               {"tokenizer.ggml.model", "a string"});
  expect_error(without(spm(), "tokenizer.ggml.tokens"), {"tokenizer.ggml.tokens", "missing"});
  expect_error(without(spm(), "tokenizer.ggml.scores"), {"tokenizer.ggml.scores", "missing"});
  expect_error(without(bpe(tiny_bpe({})), "tokenizer.ggml.merges"), {"tokenizer.ggml.merges", "missing"});
}

TEST(TokenizerMalformed, LengthsMustAgree) {
  const std::vector<float> scores(10);
  const std::vector<int32_t> types(300, 1);
  expect_error(without(spm(), "tokenizer.ggml.scores").f32s("tokenizer.ggml.scores", scores),
               {"tokenizer.ggml.scores", "10", "259"});
  expect_error(without(spm(), "tokenizer.ggml.token_type").i32s("tokenizer.ggml.token_type", types),
               {"tokenizer.ggml.token_type", "300", "259"});
}

TEST(TokenizerMalformed, ElementTypesMustBeRight) {
  const std::string bytes = test::raw(uint32_t{GgufWriter::vu8}) + test::raw(uint64_t{259}) + std::string(259, '\0');
  const std::string wide =
      test::raw(uint32_t{GgufWriter::vf64}) + test::raw(uint64_t{259}) + std::string(259 * 8, '\0');
  for (const std::string& raw : {bytes, wide})
    expect_error(without(spm(), "tokenizer.ggml.scores").raw_value("tokenizer.ggml.scores", GgufWriter::varray, raw),
                 {"tokenizer.ggml.scores", "f32"});
  expect_error(
      without(spm(), "tokenizer.ggml.token_type").raw_value("tokenizer.ggml.token_type", GgufWriter::varray, bytes),
      {"tokenizer.ggml.token_type", "i32"});
  expect_error(without(spm(), "tokenizer.ggml.tokens").raw_value("tokenizer.ggml.tokens", GgufWriter::varray, bytes),
               {"tokenizer.ggml.tokens", "strings"});
  expect_error(without(spm(), "tokenizer.ggml.tokens").u32("tokenizer.ggml.tokens", 3),
               {"tokenizer.ggml.tokens", "strings"});
  expect_error(spm().u32("tokenizer.ggml.add_bos_token", 1), {"tokenizer.ggml.add_bos_token", "bool"});
  expect_error(spm().str("tokenizer.ggml.add_space_prefix", "yes"), {"tokenizer.ggml.add_space_prefix", "bool"});
}

TEST(TokenizerMalformed, ScoresMustBeFinite) {
  TinyVocabulary v = tiny_spm();
  v.add("a", 1, std::nanf(""));
  expect_error(v.writer("llama"), {"tokenizer.ggml.scores", "259", "nan"});
  v.scores.back() = INFINITY;
  expect_error(v.writer("llama"), {"tokenizer.ggml.scores", "inf"});
}

TEST(TokenizerMalformed, TypesMustBeKnown) {
  for (int32_t type : {7, -1, INT32_MAX}) {
    TinyVocabulary v = tiny_spm();
    v.add("a", type);
    expect_error(v.writer("llama"), {"tokenizer.ggml.token_type", "259"});
  }
}

TEST(TokenizerMalformed, SpecialIdsMustBeInTheVocabulary) {
  for (const char* key :
       {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.unknown_token_id",
        "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    expect_error(spm().u32(key, 259), {key, "259"});
    expect_error(spm().u32(key, UINT32_MAX), {key, "259"});
    expect_error(spm().i32(key, -1), {key, "-1"});
    expect_error(spm().u64(key, uint64_t{1} << 63), {key});
    expect_error(spm().f(key, 1.0f), {key, "integer"});
    expect_error(spm().str(key, "1"), {key, "integer"});
  }
  EXPECT_NO_THROW(load(spm().u32("tokenizer.ggml.bos_token_id", 258)));
}

TEST(TokenizerMalformed, ByteTokensMustSpellBytes) {
  for (const char* text : {"<0x-1>", "<0xZZ>", "<0x1>", "<0x100>", "0x41", "<0X41>", "<0x4 >", "A"}) {
    TinyVocabulary v = tiny_spm();
    v.add(text, 6);
    expect_error(v.writer("llama"), {"tokenizer.ggml.tokens", text});
  }
  TinyVocabulary twice = tiny_spm();
  twice.add("<0xab>", 6);  // <0xAB> is there
  expect_error(twice.writer("llama"), {"tokenizer.ggml.tokens", "same byte"});
}

TEST(TokenizerMalformed, MergesMustJoinTokensIntoTokens) {
  for (const char* merge : {"ab", "", " ", "a ", " b", "a b c", "a  b"}) {
    TinyVocabulary v = tiny_bpe({});
    v.add("ab");
    v.merges = {"a b", merge};
    expect_error(bpe(v), {"tokenizer.ggml.merges", "merge 1"});
  }
  for (const char* merge : {"ab c", "c ab", "b a"}) {
    TinyVocabulary v = tiny_bpe({});
    v.merges = {merge};
    expect_error(bpe(v), {"tokenizer.ggml.merges", "not in tokenizer.ggml.tokens"});
  }
}

TEST(TokenizerMalformed, MergesThatGoInCirclesEnd) {
  // Every merge shortens the text, so no list of them can loop; this one names each pair both ways and twice.
  TinyVocabulary v = tiny_bpe({"a b", "b a"});
  v.merges.insert(v.merges.end(), {"a b", "b a"});
  const auto t = load(bpe(v));
  EXPECT_EQ(t->decode(t->encode("abababba", {.add_bos = false})), "abababba");
}

TEST(TokenizerMalformed, TokensMustBeUsable) {
  const std::pair<std::string, const char*> bad[] = {
      {"", "empty"}, {std::string("a\0b", 3), "NUL"}, {std::string(5000, 'x'), "5000"}, {"</s>", "both"}};
  for (const auto& [text, part] : bad) {
    TinyVocabulary v = tiny_spm();
    v.add(text);
    expect_error(v.writer("llama"), {"tokenizer.ggml.tokens", "259", part});
    TinyVocabulary b = tiny_bpe({});
    b.add("</s>");
    b.add(text);
    expect_error(bpe(b), {"tokenizer.ggml.tokens", "257", part});
  }
  expect_error(TinyVocabulary().writer("llama"), {"tokenizer.ggml.tokens", "empty"});
}

GgufWriter unigram(const std::string& charsmap) {
  TinyVocabulary v = tiny_spm();
  for (const char* text : {"\xE2\x96\x81", "a", "b", "c"}) v.add(text, 1, -1);
  GgufWriter writer = without(v.writer("llama"), "tokenizer.ggml.model").str("tokenizer.ggml.model", "t5");
  return writer.raw_value("tokenizer.ggml.precompiled_charsmap", GgufWriter::varray,
                          test::raw(uint32_t{GgufWriter::vu8}) + test::raw(uint64_t{charsmap.size()}) + charsmap);
}

/// A character map from "a" to what stands at `value` of the replacements; the last step of the search is at `step`.
std::string charsmap(const std::string& replacements, uint32_t value = 0, uint32_t step = 1) {
  std::vector<uint32_t> units(98);
  units['a'] = 'a' | 1u << 8 | step << 10;
  units['a' ^ 1] = 1u << 31 | value;
  return test::raw(static_cast<uint32_t>(units.size() * 4)) +
         std::string(reinterpret_cast<const char*>(units.data()), units.size() * 4) + replacements;
}

TEST(TokenizerMalformed, CharacterMapsMustHoldTheirTries) {
  const std::string good = charsmap(std::string("bc\0", 3));
  const auto plain = load(unigram("")), mapped = load(unigram(good));
  ASSERT_EQ(mapped->encode("a", {.add_bos = false}), plain->encode("bc", {.add_bos = false}));
  const char* key = "tokenizer.ggml.precompiled_charsmap";
  for (const size_t size : {1, 2, 3}) expect_error(unigram(good.substr(0, size)), {key, "map of"});
  for (const uint32_t trie : {uint32_t{391}, static_cast<uint32_t>(good.size()), UINT32_MAX, UINT32_MAX - 3})
    expect_error(unigram(test::raw(trie) + good.substr(4)), {key, "expected a multiple of 4"});
  expect_error(unigram(charsmap(std::string(2000, 'b'))), {key, "2000 bytes", "at most 1024"});
  expect_error(without(unigram(""), key).str(key, "text"), {key, "an array of u8"});
  // what points out of the trie or of the replacements is no rule
  for (const std::string& odd :
       {charsmap("bc", 2), charsmap("bc", 0x7fffffff), charsmap("bc", 0, 1 << 20), charsmap("", 0)})
    EXPECT_EQ(load(unigram(odd))->encode("a", {.add_bos = false}), plain->encode("a", {.add_bos = false}));
}

TEST(TokenizerMalformed, TokensMayBeAnyBytes) {
  TinyVocabulary v = tiny_spm();
  v.add("\xFF\xE2", 1, 1);
  v.add("\xE2\x96", 1, 2);
  v.add("\x80", 4);
  v.add("\xE2\x96\x81");
  const auto t = load(v.writer("llama"));
  for (const char* text : {"\xFF\xE2", "\xE2\x96", "a\x80\x80", "\xE2\x96\xFF\xE2 \xE2"})
    EXPECT_EQ(t->decode(t->encode(text, {.add_bos = false})), text);
}

}  // namespace
}  // namespace nibble::models
