// SPDX-License-Identifier: Apache-2.0
// Tokenizers on small vocabularies, against naive merging written here.
#include "models/text/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <random>

#include "models/text/pretokenizer.h"
#include "models/text/pretokenizer_names.h"
#include "models/text/unicode.h"
#include "tensor/check.h"
#include "tests/models/tiny_vocabulary.h"

namespace nibble::models {
namespace {

using Ids = std::vector<int32_t>;
const std::string space = "\xE2\x96\x81";
constexpr EncodeOptions plain = {.add_bos = false, .parse_special = false};

std::string utf8(uint32_t c) {
  const auto byte = [](uint32_t b) { return static_cast<char>(b); };
  if (c < 0x80) return {byte(c)};
  if (c < 0x800) return {byte(0xC0 | c >> 6), byte(0x80 | (c & 63))};
  if (c < 0x10000) return {byte(0xE0 | c >> 12), byte(0x80 | (c >> 6 & 63)), byte(0x80 | (c & 63))};
  return {byte(0xF0 | c >> 18), byte(0x80 | (c >> 12 & 63)), byte(0x80 | (c >> 6 & 63)), byte(0x80 | (c & 63))};
}

std::string random_unicode(std::mt19937& random, int characters) {
  const uint32_t limits[] = {0x80, 0x80, 0x800, 0x3000, 0x10000, 0x110000};
  std::string out;
  while (characters > 0) {
    const uint32_t c = static_cast<uint32_t>(random()) % limits[random() % 6];
    if (c >= 0xD800 && c < 0xE000) continue;
    out += random() % 4 ? utf8(c) : std::string(1 + random() % 3, " \n\t'7a"[random() % 6]);
    --characters;
  }
  return out;
}

/// Joins, again and again, the leftmost of the pairs with the highest rank: O(n^2), and nothing to get wrong.
template <class Rank>
std::vector<std::string> naive_merge(std::vector<std::string> parts, const Rank& rank) {
  for (;;) {
    size_t best = parts.size();
    double best_rank = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto r = rank(parts[i], parts[i + 1]);
      if (r && (best == parts.size() || *r > best_rank)) best = i, best_rank = *r;
    }
    if (best == parts.size()) return parts;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<ptrdiff_t>(best) + 1);
  }
}

TEST(TokenizerSpm, HighScoresMergeFirstAndTheLeftmostOfEquals) {
  TinyVocabulary v = tiny_spm();
  for (const char* c : {"a", "b", "c"}) v.add(c, 1, -100);
  const int32_t ab = v.add("ab", 1, -2), bc = v.add("bc", 1, -1), aa = v.add("aa", 1, -3), mark = v.add(space, 1, -50);
  const auto t = load(v.writer("llama").boolean("tokenizer.ggml.add_space_prefix", false));
  const int32_t a = t->encode("a", plain).at(0);
  EXPECT_EQ(t->encode("abc", plain), (Ids{a, bc}));
  EXPECT_EQ(t->encode("aaa", plain), (Ids{aa, a}));
  EXPECT_EQ(t->encode("ab ab", plain), (Ids{ab, mark, ab}));
}

TEST(TokenizerSpm, MatchesNaiveMergingOnRandomTexts) {
  std::mt19937 random(3);
  TinyVocabulary v = tiny_spm();
  std::map<std::string, std::pair<int32_t, float>> known;
  const std::vector<std::string> letters = {"a", "b", space, utf8(0xE4), utf8(0x20AC), "x"};
  for (int i = 0; i < 120; ++i) {
    std::string text;
    for (size_t n = 1 + random() % 5; n > 0; --n) text += letters[random() % letters.size()];
    const auto score = static_cast<float>(static_cast<int>(random() % 40)) * -0.5f;
    if (text != "x" && !known.count(text)) known[text] = {v.add(text, 1, score), score};  // "x" only inside tokens
  }
  const auto t = load(v.writer("llama"));
  for (int round = 0; round < 300; ++round) {
    std::string text;
    std::vector<std::string> parts = {space};
    for (int i = 0; i < 30; ++i) {
      parts.push_back(letters[random() % letters.size()]);
      text += parts.back() == space ? " " : parts.back();
    }
    const auto merged = naive_merge(parts, [&](const std::string& l, const std::string& r) -> std::optional<double> {
      const auto found = known.find(l + r);
      return found == known.end() ? std::nullopt : std::optional<double>(found->second.second);
    });
    Ids want;
    for (const std::string& part : merged) {
      if (known.count(part))
        want.push_back(known.at(part).first);
      else
        for (char byte : part) want.push_back(3 + static_cast<uint8_t>(byte));
    }
    EXPECT_EQ(t->encode(text, plain), want) << text;
    EXPECT_EQ(t->decode(want), text);
  }
}

TEST(TokenizerSpm, UnknownCharactersFallBackToBytes) {
  TinyVocabulary v = tiny_spm();
  v.add("a");
  v.add(space);
  const auto t = load(v.writer("llama").boolean("tokenizer.ggml.add_space_prefix", false));
  EXPECT_EQ(t->encode(utf8(0x20AC), plain), (Ids{3 + 0xE2, 3 + 0x82, 3 + 0xAC}));
  EXPECT_EQ(t->encode("\xFF", plain), (Ids{3 + 0xFF}));
  EXPECT_EQ(t->piece(3 + 0xE2), "\xE2");
  std::mt19937 random(5);
  for (int i = 0; i < 200; ++i) {
    const std::string text = random_unicode(random, 20);
    EXPECT_EQ(t->decode(t->encode(text, plain)), text);
  }
  TinyVocabulary no_bytes;
  no_bytes.add("<unk>", 2);
  no_bytes.add("a");
  EXPECT_EQ(load(no_bytes.writer("llama").boolean("tokenizer.ggml.add_space_prefix", false))->encode("ba", plain),
            (Ids{0, 1}));
}

TEST(TokenizerSpm, TextCannotMergeIntoControlTokens) {
  TinyVocabulary v = tiny_spm();
  for (const char* c : {"<", "/", "s", ">", "<s", "</", "s>", "/s>", "</s", "<0", "x41>", "0", "x", "4", "1"})
    v.add(c, 1, -1);
  const auto t = load(v.writer("llama").boolean("tokenizer.ggml.add_space_prefix", false));
  for (const char* text : {"</s>", "<s>", "<unk>", "<0x41>"}) {
    for (int32_t id : t->encode(text, plain)) EXPECT_GE(id, 3) << text;
    EXPECT_EQ(t->decode(t->encode(text, plain)), text);
  }
  EXPECT_EQ(t->encode("</s>", {.add_bos = false, .parse_special = true}), (Ids{2}));
}

TEST(TokenizerSpm, TheSpacePrefixIsAddedAndDropped) {
  TinyVocabulary v = tiny_spm();
  const int32_t a = v.add("a"), mark = v.add(space), sa = v.add(space + "a", 1, 1);
  const auto t = load(v.writer("llama"));
  EXPECT_EQ(t->encode("a"), (Ids{1, sa}));
  EXPECT_EQ(t->encode(""), (Ids{1}));
  EXPECT_EQ(t->encode("a</s>a", {.add_bos = false}), (Ids{sa, 2, sa}));
  EXPECT_EQ(t->decode(Ids{1, sa, a, sa}), "aa a");
  EXPECT_EQ(t->decode(Ids{1, sa}, true), "<s>a");
  EXPECT_EQ(t->piece(sa), " a");
  EXPECT_EQ(t->decode(t->encode("  a")), "  a");
  const auto off = load(v.writer("llama").boolean("tokenizer.ggml.add_space_prefix", false));
  EXPECT_EQ(off->encode("a a", plain), (Ids{a, sa}));
  EXPECT_EQ(off->decode(Ids{mark, a}), " a");
}

TEST(TokenizerBpe, EarlyMergesGoFirst) {
  const auto t = load(tiny_bpe({"b c", "a b", "\xC4\xA0 a", "a bc"}).writer("gpt2").str("tokenizer.ggml.pre", "gpt-2"));
  const auto id = [&](const char* text) { return t->encode(text, plain).size() == 1 ? t->encode(text, plain)[0] : -1; };
  EXPECT_EQ(t->encode("abc", plain), (Ids{259}));
  EXPECT_EQ(t->encode("bab", plain), (Ids{'b' - 33 + 33, 257}));
  EXPECT_EQ(id(" a"), 258);
  EXPECT_EQ(t->piece(258), " a");
  EXPECT_EQ(t->encode("a a", plain), (Ids{'a', 258}));
}

TEST(TokenizerBpe, MatchesNaiveMergingOnRandomWords) {
  std::mt19937 random(11);
  std::vector<std::string> pieces = {"a", "b", "c"}, merges;
  std::map<std::string, double> rank;
  while (merges.size() < 60) {
    const std::string l = pieces[random() % pieces.size()], r = pieces[random() % pieces.size()], both = l + r;
    if (both.size() > 12 || std::find(pieces.begin(), pieces.end(), both) != pieces.end()) continue;
    rank[l + " " + r] = -static_cast<double>(merges.size());
    merges.push_back(l + " " + r);
    pieces.push_back(both);
  }
  const auto t = load(tiny_bpe(merges).writer("gpt2").str("tokenizer.ggml.pre", "gpt-2"));
  for (int round = 0; round < 300; ++round) {
    std::vector<std::string> parts;
    std::string text;
    for (int i = 0; i < 60; ++i) text += parts.emplace_back(1, "abc"[random() % 3]);
    const auto merged = naive_merge(parts, [&](const std::string& l, const std::string& r) -> std::optional<double> {
      const auto found = rank.find(l + " " + r);
      return found == rank.end() ? std::nullopt : std::optional<double>(found->second);
    });
    std::vector<std::string> got;
    for (int32_t id : t->encode(text, plain)) got.push_back(t->piece(id));
    EXPECT_EQ(got, merged);
  }
}

TEST(TokenizerBpe, EveryTextRoundTripsWithEveryPreTokenizer) {
  for (const std::string_view view : pretokenizer_names()) {
    const std::string name(view);
    if (name == "whitespace") continue;  // drops the spaces
    const auto t = load(tiny_bpe({"a a", "\xC4\xA0 \xC4\xA0", "7 7"}).writer("gpt2").str("tokenizer.ggml.pre", name));
    if (!named_pretokenizer(name).byte_level) continue;
    std::mt19937 random(13);
    for (int i = 0; i < 100; ++i) {
      std::string text = random_unicode(random, 40);
      if (named_pretokenizer(name).nfc) text = normal_form(text, NormalForm::nfc);
      EXPECT_EQ(t->decode(t->encode(text, plain)), text) << name;
      for (size_t at = 0; at < text.size(); at += 5) text[at] = static_cast<char>(random());
      if (named_pretokenizer(name).nfc) text = normal_form(text, NormalForm::nfc);
      EXPECT_EQ(t->decode(t->encode(text, plain)), text) << name << ", not UTF-8";
    }
    // A long text takes the path with the word cache, which must not show.
    std::string many;
    while (many.size() < 6000) many += random_unicode(random, 5) + " the  777 aaaa";
    if (named_pretokenizer(name).nfc) many = normal_form(many, NormalForm::nfc);
    const std::string half = many.substr(0, many.rfind(" the  777"));
    const Ids all = t->encode(many, plain), some = t->encode(half, plain);
    EXPECT_EQ(t->decode(all), many) << name;
    EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin())) << name;
  }
}

TEST(TokenizerBpe, NoTextTakesQuadraticTimeWithAnyPreTokenizer) {
  for (const std::string_view view : pretokenizer_names()) {
    const std::string name(view);
    if (name == "whitespace") continue;  // drops the spaces
    const PreTokenizer pre(name);
    for (const char* unit : {"a", " ", "\n", ".", "7", " \n", "A", "\xE4\xBD\xA0", "\t ", "'", "\xC2\xA0"}) {
      std::string text;
      while (text.size() < 300000) text += unit;
      std::vector<std::string_view> words;
      pre.split(text + "x", words);
      EXPECT_FALSE(words.empty()) << name << " '" << unit << "'";
    }
  }
}

std::string cut(const char* name, const std::string& text) {
  std::vector<std::string_view> words;
  PreTokenizer(name).split(text, words);
  std::string out;
  for (std::string_view word : words) (out += word) += "|";
  return out;
}

TEST(PreTokenizer, CutsAsTheNamedModelsDo) {
  const std::string text = "I'll pay 12345  EUR!!\n\n ok";
  EXPECT_EQ(cut("gpt-2", text), "I|'ll| pay| 12345| | EUR|!!|\n\n| ok|");
  EXPECT_EQ(cut("smollm", text), "I|'ll| pay| |1|2|3|4|5| | EUR|!!|\n\n| ok|");
  EXPECT_EQ(cut("llama-bpe", text), "I|'ll| pay| |123|45| | EUR|!!\n\n| ok|");
  EXPECT_EQ(cut("qwen2", text), "I|'ll| pay| |1|2|3|4|5| | EUR|!!\n\n| ok|");
  EXPECT_EQ(cut("falcon", text), "I|'|ll| pay| |123|45| | EUR|!!|\n\n| ok|");
  EXPECT_EQ(cut("gpt-4o", "HelloWorld's"), "Hello|World's|");
  EXPECT_EQ(cut("tekken", "HelloWorld's"), "Hello|World|'s|");
  EXPECT_EQ(cut("deepseek-coder", "ab\n12, c"), "ab|\n|1|2|,| c|");
  EXPECT_EQ(cut("deepseek-llm", "ab  \nc 12"), "ab|  |\n|c| |12|");
  EXPECT_EQ(cut("gpt-2",
                "a\xE1\xA0\x8E"
                "b"),
            "a|\xE1\xA0\x8E|b|")
      << "U+180E is not white space any more";
  EXPECT_EQ(cut("llama-bpe", "I'LL"), "I|'LL|");
  EXPECT_EQ(cut("gpt-2", "I'LL"), "I|'|LL|");
}

TEST(PreTokenizer, UnknownNamesAreRefusedWithTheKnownOnes) {
  try {
    load(tiny_bpe({}).writer("gpt2").str("tokenizer.ggml.pre", "no-such-pre"));
    FAIL() << "no error";
  } catch (const Error& error) {
    for (const char* part : {"tiny.gguf", "tokenizer.ggml.pre", "no-such-pre", "llama-bpe", "qwen2", "smollm"})
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << part << " in: " << error.what();
  }
}

TEST(TokenizerBpe, MissingBytesAreLeftOut) {
  TinyVocabulary v;
  v.add("a");
  v.add("b");
  const auto t = load(v.writer("gpt2").str("tokenizer.ggml.pre", "gpt-2"));
  EXPECT_EQ(t->encode("a?b\xFF", plain), (Ids{0, 1}));
}

TEST(TokenizerSpecial, TokensInTheTextAreFoundLongestFirst) {
  TinyVocabulary v = tiny_bpe({"i m"});
  const int32_t start = v.add("<|im_start|>", 3), end = v.add("<|im_end|>", 3), two = v.add("  ", 4),
                three = v.add("   ", 4);
  const auto t = load(v.writer("gpt2").str("tokenizer.ggml.pre", "gpt-2"));
  EXPECT_EQ(t->encode("<|im_start|>x<|im_end|>"), (Ids{start, 'x', end}));
  EXPECT_EQ(t->encode("<|im_start", plain).size(), 9u) << "i m is merged, nothing else";
  for (int32_t id : t->encode("<|im_start|>", {.add_bos = false, .parse_special = false})) EXPECT_NE(id, start);
  EXPECT_EQ(t->encode("     ", plain), (Ids{three, two})) << "user-defined tokens do not depend on parse_special";
  EXPECT_EQ(t->piece(start), "");
  EXPECT_EQ(t->piece(start, true), "<|im_start|>");
  EXPECT_EQ(t->piece(two), "  ");
  EXPECT_TRUE(t->is_control(end));
  EXPECT_FALSE(t->is_control(two));
  EXPECT_EQ(t->find("<|im_end|>"), end);
  EXPECT_EQ(t->find("  "), two);
  EXPECT_EQ(t->find("a"), -1);
  EXPECT_EQ(t->find("nothing"), -1);
  EXPECT_EQ(t->token_text(start), "<|im_start|>");
  EXPECT_THROW(t->piece(-1), Error);
  EXPECT_THROW(t->piece(t->vocab()), Error);
}

TEST(TokenizerSpecial, PlainRangesHoldNoControlTokens) {
  TinyVocabulary v = tiny_bpe({});
  const int32_t end = v.add("<end>", 3), longer = v.add("<end><end>", 3), own = v.add("<own>", 4);
  const auto t = load(v.writer("gpt2"));
  const auto found = [&](std::string_view text, std::vector<TextRange> ranges) {
    std::vector<int32_t> out;
    for (int32_t id : t->encode(text, {.add_bos = true, .parse_special = true, .plain = ranges}))
      if (id >= end) out.push_back(id);
    return out;
  };
  EXPECT_EQ(found("<end>a<end>", {}), (Ids{end, end}));
  EXPECT_EQ(found("<end>a<end>", {{0, 5}}), (Ids{end}));
  EXPECT_EQ(found("<end>a<end>", {{5, 6}}), (Ids{end, end})) << "only touching the neighbours";
  EXPECT_EQ(found("<end>a<end>", {{0, 1}, {10, 11}}), (Ids{})) << "one byte is enough, at either end";
  EXPECT_EQ(found("<end><end>", {}), (Ids{longer}));
  EXPECT_EQ(found("<end><end>", {{5, 10}}), (Ids{end})) << "the longest that stays outside";
  EXPECT_EQ(found("<end>a<own>", {{0, 11}}), (Ids{own})) << "user-defined tokens are ordinary text";
  EXPECT_EQ(
      t->decode(t->encode("<end>a", {.add_bos = true, .parse_special = true, .plain = std::vector<TextRange>{{0, 6}}})),
      "<end>a");
}

TEST(TokenizerSpecial, BosAndEosFollowTheFileAndTheKind) {
  const TinyVocabulary spm = tiny_spm();
  EXPECT_EQ(load(spm.writer("llama"))->encode(""), (Ids{1})) << "SentencePiece adds BOS unless told otherwise";
  EXPECT_EQ(load(spm.writer("llama").boolean("tokenizer.ggml.add_bos_token", false))->encode(""), (Ids{}));
  EXPECT_EQ(load(spm.writer("llama").boolean("tokenizer.ggml.add_eos_token", true))->encode(""), (Ids{1, 2}));
  EXPECT_EQ(load(spm.writer("llama").u32("tokenizer.ggml.bos_token_id", 2))->encode(""), (Ids{2}));
  TinyVocabulary bpe = tiny_bpe({});
  const auto s = static_cast<uint32_t>(bpe.add("<|begin_of_text|>", 3));
  const auto with = [&](const char* pre) {
    return bpe.writer("gpt2").str("tokenizer.ggml.pre", pre).u32("tokenizer.ggml.bos_token_id", s);
  };
  EXPECT_EQ(load(with("gpt-2"))->encode(""), (Ids{}));
  EXPECT_EQ(load(with("llama-bpe"))->encode(""), (Ids{static_cast<int32_t>(s)}));
  EXPECT_EQ(load(with("gpt-2").boolean("tokenizer.ggml.add_bos_token", true))->encode(""),
            (Ids{static_cast<int32_t>(s)}));
  EXPECT_EQ(load(with("llama-bpe"))->encode("", {.add_bos = false}), (Ids{}));
  const auto none = load(bpe.writer("gpt2").str("tokenizer.ggml.pre", "llama-bpe"));
  EXPECT_EQ(none->bos(), -1);
  EXPECT_FALSE(none->adds_bos());
  EXPECT_EQ(none->encode(""), (Ids{}));
}

TEST(TokenizerSpecial, EndTokensAreEosEotAndTheKnownTexts) {
  TinyVocabulary v = tiny_bpe({});
  const int32_t eos = v.add("stop", 3), eot = v.add("turn", 3), other = v.add("<|im_start|>", 3);
  std::vector<int32_t> ends = {eos, eot};
  for (const char* text :
       {"<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "</s>", "<|endoftext|>", "<|end_of_text|>"})
    ends.push_back(v.add(text, ends.size() % 2 ? 3 : 1));
  const auto t = load(v.writer("gpt2")
                          .str("tokenizer.ggml.pre", "gpt-2")
                          .u32("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(eos))
                          .u32("tokenizer.ggml.eot_token_id", static_cast<uint32_t>(eot)));
  for (int32_t id : ends) {
    EXPECT_TRUE(t->is_end(id)) << t->token_text(id);
    EXPECT_TRUE(t->is_control(id)) << t->token_text(id);
    EXPECT_EQ(t->piece(id), "");
  }
  EXPECT_FALSE(t->is_end(other));
  EXPECT_FALSE(t->is_end('a'));
  EXPECT_FALSE(t->is_end(-1));
}

}  // namespace
}  // namespace nibble::models
