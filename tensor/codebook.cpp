// SPDX-License-Identifier: Apache-2.0
// The codebooks of the layout family. A zero point is the smallest power of two that makes all values non-negative: it
// decides how many products a kernel can add in 16 bits.
#include <algorithm>
#include <bit>
#include <cmath>
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

constexpr FloatBook float_books[] = {
    // bitsandbytes' maps: NF4 (QLoRA, appendix E), and FP4, in twelfths of 1 / 16.
    {.name = "nf4_float",
     .bits = 4,
     .unit = 1,
     .least = 0x1.45f5fep-4f,
     .most = 1,
     .values = {-1.0f, -0x1.647362p-1f, -0x1.0cd66p-1f, -0x1.94654p-2f, -0x1.23449ap-2f, -0x1.7a6a7ep-3f,
                -0x1.74f0e2p-4f, 0.0f, 0x1.45f5fep-4f, 0x1.4995c6p-3f, 0x1.f809bap-3f, 0x1.5a0674p-2f, 0x1.c3497p-2f,
                0x1.200f56p-1f, 0x1.722766p-1f, 1.0f}},
    {.name = "fp4_float",
     .bits = 4,
     .unit = 1,
     .least = 0x1.555556p-8f,
     .most = 1,
     .values = {0.0f, 0x1.555556p-8f, 0x1.555556p-1f, 1.0f, 0x1.555556p-2f, 0.5f, 0x1.555556p-3f, 0.25f, 0.0f,
                -0x1.555556p-8f, -0x1.555556p-1f, -1.0f, -0x1.555556p-2f, -0.5f, -0x1.555556p-3f, -0.25f}},
    // OCP 8-bit floats, revision 1.0. Their exponent in the place of an f32's: too small by the biases' difference.
    {.name = "e4m3", .bits = 8, .unit = 0x1p120f, .least = 0x1p-9f, .most = 448, .shift = 4, .mask = 0x87f00000u},
    {.name = "e5m2", .bits = 8, .unit = 0x1p112f, .least = 0x1p-16f, .most = 57344, .shift = 3, .mask = 0x8fe00000u},
};

}  // namespace

float FloatBook::value(unsigned code) const {
  if (bits == 4) return values[code];
  const auto wide = static_cast<uint32_t>(static_cast<int32_t>(code << 24) >> shift);
  return std::bit_cast<float>(wide & mask);
}

const FloatBook* float_book(int index) {
  return index >= books::nf4_float && index <= books::e5m2 ? &float_books[index - books::nf4_float] : nullptr;
}

bool float_weights(const QuantLayout& layout) { return layout.bits == 0 || float_book(layout.codebook) != nullptr; }

float rounded_product(DType type, float product) {
  if (type == DType::f16) return f16_to_f32(f32_to_f16(product));
  if (type == DType::f32) return product;
  // -65535 times the product keeps as many bits as bf16 has in front of a multiple of 65536 times it; ties go to even
  return std::fma(product, 65536.0f, std::fma(product, -65536.0f, product));
}

bool float_range_fits(const FloatBook& book, DType product, float least, float most) {
  const float largest = product == DType::f16 ? 65504.0f : 0x1p110f;
  return most < 0x1p127f / book.unit && most * book.most <= largest && (least == 0 || least * book.least >= 0x1p-126f);
}

int Codebook::largest() const { return *std::max_element(codes().begin(), codes().end()) + zero; }

const Codebook& panel_codebook(int index) {
  NIBBLE_CHECK(index > 0 && index < static_cast<int>(std::size(codebooks)), "codebook ", index, ": expected 1 to ",
               std::size(codebooks) - 1);
  return codebooks[index];
}

}  // namespace nibble
