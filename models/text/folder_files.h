// SPDX-License-Identifier: Apache-2.0
// A GGUF file's tokenizer as the files that a Hugging Face folder has: tokenizer.json, for byte-level BPE and
// SentencePiece's, and what goes beside it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "models/io/gguf.h"
#include "models/io/metadata.h"

namespace nibble::models {

/// Name and text of each: also tokenizer_config.json, with the chat template, and generation_config.json. They encode
/// as Tokenizer::from_gguf does, but where two ways to make the same token of SentencePiece overlap: there its own code
/// takes the leftmost, tokenizer.json the one of lower ids, in transformers' conversions too. None when the file has no
/// tokenizer; throws Error for kinds and pre-tokenizers that these files can't say.
std::vector<std::pair<std::string, std::string>> tokenizer_files(const Gguf& gguf, const Metadata& metadata);

}  // namespace nibble::models
