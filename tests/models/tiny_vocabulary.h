// SPDX-License-Identifier: Apache-2.0
// Small vocabularies for tokenizer tests.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/io/gguf.h"
#include "models/text/tokenizer.h"
#include "tests/support/gguf_writer.h"

namespace nibble::models {

struct TinyVocabulary {
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  std::vector<float> scores;
  std::vector<std::string> merges;

  int32_t add(const std::string& text, int32_t type = 1, float score = 0) {
    tokens.push_back(text);
    types.push_back(type);
    scores.push_back(score);
    return static_cast<int32_t>(tokens.size()) - 1;
  }
  test::GgufWriter writer(const std::string& kind) const {
    test::GgufWriter out;
    out.str("tokenizer.ggml.model", kind)
        .strs("tokenizer.ggml.tokens", tokens)
        .i32s("tokenizer.ggml.token_type", types);
    if (kind == "llama")
      out.f32s("tokenizer.ggml.scores", scores);
    else
      out.strs("tokenizer.ggml.merges", merges);
    return out;
  }
};

inline std::shared_ptr<const Tokenizer> load(const test::GgufWriter& writer) {
  test::TempDir dir;
  writer.save(dir / "tiny.gguf");
  return Tokenizer::from_gguf(Gguf::open(dir / "tiny.gguf"));
}

/// GPT-2's spelling of a byte: printable Latin-1 as itself, the others from U+0100 on in order.
inline std::string spelled(int byte) {
  int code = 256;
  for (int b = 0; b <= byte; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    if (b == byte)
      code = printable ? b : code;
    else if (!printable)
      ++code;
  }
  if (code < 128) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
}

/// All bytes and the given merges ("a b"), in order of rank.
inline TinyVocabulary tiny_bpe(const std::vector<std::string>& merges) {
  TinyVocabulary v;
  for (int byte = 0; byte < 256; ++byte) v.add(spelled(byte));
  for (const std::string& merge : merges) {
    std::string text = merge;
    text.erase(text.find(' '), 1);
    v.add(text);
  }
  v.merges = merges;
  return v;
}

/// <unk>, <s>, </s>, all byte tokens; add the rest.
inline TinyVocabulary tiny_spm() {
  TinyVocabulary v;
  v.add("<unk>", 2);
  v.add("<s>", 3);
  v.add("</s>", 3);
  const char* digits = "0123456789ABCDEF";
  for (int byte = 0; byte < 256; ++byte) v.add(std::string("<0x") + digits[byte / 16] + digits[byte % 16] + ">", 6);
  return v;
}

}  // namespace nibble::models
