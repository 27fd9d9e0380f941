// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <random>

#include "models/text/tokenizer.h"
#include "models/text/utf8.h"

namespace nibble::models {
namespace {

const std::string mark = "\xEF\xBF\xBD";

std::string whole(std::string_view text) {
  Utf8Stream stream;
  std::string out = stream.push(text);
  return out + stream.flush();
}

TEST(Utf8Stream, TextSplitAtEveryByteComesOutWhole) {
  const std::string text = "a\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80z\xF4\x8F\xBF\xBF\xED\x9F\xBF";
  for (size_t at = 0; at <= text.size(); ++at) {
    Utf8Stream stream;
    const std::string first = stream.push(std::string_view(text).substr(0, at));
    EXPECT_EQ(whole(first), first) << "only whole characters come out";
    EXPECT_TRUE(text.starts_with(first));
    EXPECT_GT(first.size() + 4, at) << "nothing but one character is held back";
    const std::string second = stream.push(std::string_view(text).substr(at));
    EXPECT_EQ(first + second + stream.flush(), text) << at;
  }
  Utf8Stream bytes;
  std::string out;
  for (char byte : text) out += bytes.push(std::string(1, byte));
  EXPECT_EQ(out + bytes.flush(), text);
}

TEST(Utf8Stream, InvalidBytesBecomeReplacementCharacters) {
  EXPECT_EQ(whole("\xFF"), mark);
  EXPECT_EQ(whole("a\x80z"), "a" + mark + "z");
  EXPECT_EQ(whole("\xC0\xAF"), mark + mark) << "overlong";
  EXPECT_EQ(whole("\xED\xA0\x80"), mark + mark + mark) << "surrogate";
  EXPECT_EQ(whole("\xF4\x90\x80\x80"), mark + mark + mark + mark) << "above U+10FFFF";
  EXPECT_EQ(whole("\xE2\x82z"), mark + "z") << "one mark for the longest beginning of a character";
  EXPECT_EQ(whole("\xF0\x9F\x98"), mark) << "cut off at the end";
  EXPECT_EQ(whole(std::string_view("\0", 1)), std::string(1, '\0'));
}

TEST(Utf8Stream, RandomBytesDoNotDependOnHowTheyAreSplit) {
  std::mt19937 random(7);
  const std::string leads = "aZ\x80\xBF\xC2\xE0\xE2\xED\xF0\xF4\xF5\xFF\x9F\xA0\x8F\x90";
  for (int round = 0; round < 500; ++round) {
    std::string text, out;
    for (int i = 0; i < 40; ++i) text += leads[random() % leads.size()];
    Utf8Stream stream;
    for (size_t at = 0; at < text.size();) {
      const size_t count = 1 + random() % 4;
      out += stream.push(std::string_view(text).substr(at, count));
      at += count;
    }
    out += stream.flush();
    EXPECT_EQ(out, whole(text));
    EXPECT_EQ(whole(out), out);
  }
}

TEST(Utf8Stream, StartsAfreshAfterFlush) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("\xE2\x82"), "");
  EXPECT_EQ(stream.flush(), mark);
  EXPECT_EQ(stream.flush(), "");
  EXPECT_EQ(stream.push("\xAC"
                        "b"),
            mark + "b");
}

}  // namespace
}  // namespace nibble::models
