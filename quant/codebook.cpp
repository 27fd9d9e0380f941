// SPDX-License-Identifier: Apache-2.0
// Codebooks: int8 values of 4-bit codes. 1: NF4 (QLoRA, arXiv 2305.14314, appendix E) scaled to 127 and rounded.
#include <array>

#include "quant/format.h"
#include "tensor/check.h"

namespace nibble::quant {

namespace {
constexpr std::array<int8_t, 16> nf4 = {-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127};
}

std::span<const int8_t, 16> codebook(int index) {
  NIBBLE_CHECK(index == 1, "codebook ", index, ": expected 1");
  return nf4;
}

}  // namespace nibble::quant
