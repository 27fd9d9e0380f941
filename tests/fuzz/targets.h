// SPDX-License-Identifier: Apache-2.0
// What fuzzing feeds: each takes any bytes as the file that it is named after, and lets only what is a bug out: an
// Error is a right answer, any other exception is not.
#pragma once

#include <string_view>

namespace nibble::fuzz {

#define NIBBLE_FUZZ(name) void name(std::string_view bytes);
#include "tests/fuzz/target_list.inc"
#undef NIBBLE_FUZZ

}  // namespace nibble::fuzz
