// SPDX-License-Identifier: Apache-2.0
// A folder's tokenizer as the keys of a GGUF file.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "models/io/gguf.h"

namespace nibble::models {

/// tokenizer.* for a model of `vocab` tokens: SentencePiece (BPE) from tokenizer.model, byte-level BPE from
/// tokenizer.json or vocab.json with merges.txt; nothing when the folder has no tokenizer. Throws Error for other
/// kinds, and for a pre-tokenizer that has no name there.
std::vector<std::pair<std::string, GgufValue>> tokenizer_keys(const std::string& folder, int vocab);

}  // namespace nibble::models
