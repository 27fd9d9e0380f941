// SPDX-License-Identifier: Apache-2.0
// What every tokenizer is made of, whatever file it comes from: written-out tokens are found, the text is normalised
// and cut into words, a model turns words into tokens, and the tokens of a template go around them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/text/detokenizer.h"
#include "models/text/normalizer.h"
#include "models/text/pretokenizer.h"
#include "models/text/special_tokens.h"
#include "models/text/subword.h"
#include "models/text/tokenizer.h"
#include "models/text/vocabulary.h"

namespace nibble::models {

struct Pipeline {
  struct Added {
    int32_t id;
    SpecialTokens::Flags flags;
    bool normalized = false;  ///< looked for in the normalised text
  };

  std::string kind;
  Vocabulary vocabulary;  ///< its bos, eos and ends are the tokenizer's
  std::vector<Added> added;
  Normalizer normalizer;
  PreTokenizer pre;
  std::shared_ptr<const void> kept;  ///< what the model refers to besides the vocabulary
  std::unique_ptr<const SubwordModel> model;
  Detokenizer detokenizer;
  bool user_defined_raw = true;  ///< user-defined tokens stand for their text, not for what the detokenizer makes of it
  std::vector<int32_t> prefix, suffix;  ///< around a text
};

/// Control, unknown and user-defined tokens, to be found as they are.
void add_typed_tokens(Pipeline& pipeline);
/// What Tokenizer::from_gguf makes a tokenizer of.
std::unique_ptr<Pipeline> read_gguf_tokenizer(const Gguf& gguf);
std::shared_ptr<const Tokenizer> make_tokenizer(std::unique_ptr<Pipeline> pipeline);

}  // namespace nibble::models
