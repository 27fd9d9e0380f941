// SPDX-License-Identifier: Apache-2.0
// Tiny tokenizers of every kind against what the reference libraries made of fuzzed texts
// (tests/data/make_tokenizer_goldens.py).
#include <gtest/gtest.h>

#include <cstdio>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "models/text/tokenizer.h"
#include "tests/support/gguf_writer.h"

namespace nibble::models {
namespace {

using nlohmann::json;
const std::string folder = NIBBLE_TEST_DATA "/tokenizers/";

uint32_t fnv(std::string_view bytes) {
  uint32_t out = 2166136261;
  for (char byte : bytes) out = (out ^ static_cast<uint8_t>(byte)) * 16777619u;
  return out;
}

std::string joined(std::span<const int32_t> ids) {
  std::string out;
  for (int32_t id : ids) {
    if (!out.empty()) out.push_back(',');
    out.append(std::to_string(id));
  }
  return out;
}

std::string folded(uint32_t hash) {
  char out[8];
  std::snprintf(out, sizeof(out), "%04x", (hash ^ hash >> 16) & 0xFFFF);
  return out;
}

const json& goldens() {
  static const json all = json::parse(test::read_file(folder + "goldens.json"));
  return all;
}

/// The base file of a case with the keys that the case replaces.
std::shared_ptr<const Tokenizer> load_case(const json& item) {
  const std::string base = item.at("base");
  if (!base.ends_with(".json")) return Tokenizer::load(folder + base);
  json spec = json::parse(test::read_file(folder + base));
  for (const auto& [key, value] : item.at("keys").items()) {
    if (key.starts_with("model."))
      spec["model"][key.substr(6)] = value;
    else
      spec[key] = value;
  }
  test::TempDir dir;
  std::ofstream(dir / "tokenizer.json") << spec.dump();
  return Tokenizer::load(dir / "tokenizer.json");
}

TEST(TokenizerGoldens, IdsAndTextsAreThoseOfTheReference) {
  const auto texts = goldens().at("texts").get<std::vector<std::string>>();
  ASSERT_GT(texts.size(), 200u);
  for (const json& item : goldens().at("cases")) {
    SCOPED_TRACE(item.at("name").get<std::string>());
    const auto tokenizer = load_case(item);
    const std::string bare = item.at("bare"), decoded = item.at("decoded");
    // SentencePiece finds no control tokens in texts, Hugging Face's library does.
    const bool special = item.at("base").get<std::string>().ends_with(".json");
    std::string all;
    int wrong = 0;
    for (size_t i = 0; i < texts.size() && wrong < 3; ++i) {
      const auto ids = tokenizer->encode(texts[i], {.add_bos = false, .parse_special = special});
      const bool same = bare[4 * i] == '-' || folded(fnv(joined(ids))) == bare.substr(4 * i, 4);
      EXPECT_TRUE(same) << "ids of '" << texts[i] << "': " << joined(ids);
      const bool compare = same && decoded[4 * i] != '-';
      const bool same_text = !compare || folded(fnv(tokenizer->decode(ids))) == decoded.substr(4 * i, 4);
      EXPECT_TRUE(same_text) << "text of '" << texts[i] << "': '" << tokenizer->decode(ids) << "'";
      wrong += !same || !same_text;
      const auto full = tokenizer->encode(texts[i], {.add_bos = true, .parse_special = special});
      all.append(i > 0 ? ";" : "").append(std::to_string(fnv(joined(full))));
    }
    if (wrong == 0 && special) {
      EXPECT_EQ(fnv(all), item.at("full").get<uint32_t>()) << "with the special tokens";
    }
  }
}

TEST(TokenizerGoldens, StreamedPiecesAreTheDecodedText) {
  for (const json& item : goldens().at("cases")) {
    if (!item.at("keys").empty()) continue;
    SCOPED_TRACE(item.at("name").get<std::string>());
    const auto tokenizer = load_case(item);
    const auto first = tokenizer->encode("a ", {.add_bos = false});
    for (const auto& text : goldens().at("texts")) {
      std::vector<int32_t> ids = first;
      for (int32_t id : tokenizer->encode(text.get<std::string>(), {.add_bos = false, .parse_special = false}))
        ids.push_back(id);
      Utf8Stream whole, stream;
      std::string want = whole.push(tokenizer->decode(ids)),
                  got = stream.push(tokenizer->decode(std::span(ids).first(1)));
      for (size_t i = 1; i < ids.size(); ++i) got += stream.push(tokenizer->piece(ids[i]));
      want += whole.flush();
      got += stream.flush();
      while (got.ends_with(' ')) got.pop_back();  // a suffix that marks the end of a word is dropped from the last
      while (want.ends_with(' ')) want.pop_back();
      if (item.at("name") == "clip") continue;  // the first token decides alone whether a space follows
      EXPECT_EQ(got, want) << text;
    }
  }
}

TEST(TokenizerGoldens, NoTextTakesQuadraticTime) {
  std::string random, marks = "a", lines;
  uint32_t state = 1;
  while (random.size() < 1 << 20) {
    state = state * 1664525 + 1013904223;
    random += static_cast<char>(state >> 24);
  }
  while (marks.size() < 1 << 20) marks += "\xCC\x81\xCC\x96";  // two classes of marks, to be sorted
  while (lines.size() < 1 << 20) lines += " \n";
  const std::string texts[] = {random, marks, lines, std::string(1 << 20, 'a'), std::string(1 << 20, ' ') + "x",
                               std::string(1 << 20, '7'), std::string(1 << 20, '\xFF')};
  for (const json& item : goldens().at("cases")) {
    const std::string name = item.at("name");
    const bool chosen = item.at("keys").empty() || name == "llama3" || name == "form_NFC" || name == "form_NFKD" ||
                        name == "gpt2_added" || name == "metaspace_first_True";
    if (!chosen) continue;
    const auto tokenizer = load_case(item);
    for (const std::string& text : texts) {
      const std::clock_t start = std::clock();  // of the processor: busy machines do not count
      tokenizer->encode(text);
      const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
      // A quadratic pass over a megabyte takes minutes; this bound leaves room for sanitizers.
      EXPECT_LT(seconds, 30) << name << ", " << static_cast<int>(text[1]);
    }
  }
}

}  // namespace
}  // namespace nibble::models
