// SPDX-License-Identifier: Apache-2.0
// The normalizer, pre_tokenizer and decoder objects of a tokenizer.json.
#pragma once

#include "models/text/pipeline.h"

namespace nibble::models {

class JsonView;

void read_normalizer(const JsonView& json, Normalizer& out, int depth = 0);
/// `byte_level` is set when the words are to be spelled as bytes, which only the last step may ask for.
void read_pretokenizer(const JsonView& json, PreTokenizer& out, bool& byte_level, int depth = 0);
void read_decoder(const JsonView& json, Detokenizer& out, int depth = 0);

}  // namespace nibble::models
