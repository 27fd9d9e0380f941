// SPDX-License-Identifier: Apache-2.0
// A whole llama model in a small GGUF, to be broken in one place per test.
#pragma once

#include "tests/support/gguf_writer.h"

namespace nibble::test {

/// llama, 2 layers, width 32, 4 heads over 2, context 64, f32 weights (always the same random ones), and an SPM
/// vocabulary of 300: <unk>, <s>, </s>, the 256 bytes, then "▁", letters and a few words.
GgufWriter tiny_llama(int ffn = 48);
/// Replaces the value of a key (adding it if it is not there); raw and type as in GgufWriter::raw_value.
void set_value(GgufWriter& writer, std::string_view key, uint32_t type, std::string_view raw);
void erase_value(GgufWriter& writer, std::string_view key);
/// Removes a tensor's entry; its bytes stay.
void erase_tensor(GgufWriter& writer, std::string_view name);

}  // namespace nibble::test
