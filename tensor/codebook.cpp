// SPDX-License-Identifier: Apache-2.0
// The codebooks of the layout family. A zero point is the smallest power of two that makes all values non-negative: it
// decides how many products a kernel can add in 16 bits.
#include <algorithm>
#include <iterator>

#include "tensor/check.h"
#include "tensor/panel.h"

namespace nibble {

namespace {

constexpr Codebook codebooks[] = {
    {},
    // QLoRA (arXiv 2305.14314, appendix E) scaled to 127 and rounded.
    {"nf4", 4, 128, {-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127}},
    // IQ4_NL and IQ4_XS of ggml.
    {"iq4", 4, 128, {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}},
    // E2M1 (OCP microscaling formats 1.0) doubled; code 8 is the negative zero.
    {"fp4", 4, 16, {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}},
    {"b1", 1, 1, {-1, 1}},
    {"t2", 2, 1, {-1, 0, 1, 2}},
    // 8 g + 1, then 8 g - 1, for g = -1, 0, 1 (IQ1 of ggml: eighths); codes 3 and 7 don't occur.
    {"iq1", 3, 16, {-7, 1, 9, 9, -9, -1, 7, 7}},
    // Magnitudes of the IQ2 and IQ3_XXS grids of ggml, then the same with the sign; IQ2 has no codes 3 and 7.
    {"iq2", 3, 64, {8, 25, 43, 43, -8, -25, -43, -43}},
    {"iq3", 4, 64, {4, 12, 20, 28, 36, 44, 52, 62, -4, -12, -20, -28, -36, -44, -52, -62}},
    // IQ3_S of ggml.
    {"odd", 4, 16, {1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15}},
};

}  // namespace

int Codebook::largest() const { return *std::max_element(codes().begin(), codes().end()) + zero; }

const Codebook& panel_codebook(int index) {
  NIBBLE_CHECK(index > 0 && index < static_cast<int>(std::size(codebooks)), "codebook ", index, ": expected 1 to ",
               std::size(codebooks) - 1);
  return codebooks[index];
}

}  // namespace nibble
