// SPDX-License-Identifier: Apache-2.0
// Functions compiled once per instruction set and chosen when the program starts.
#pragma once

/// In front of a function: NIBBLE_CLONES("avx2", "default"). Nothing under the thread sanitizer, whose calls in the
/// choosing code run before it is set up and crash (gcc 12).
#if defined(__SANITIZE_THREAD__)
#define NIBBLE_CLONES(...)
#else
#define NIBBLE_CLONES(...) __attribute__((target_clones(__VA_ARGS__)))
#endif
