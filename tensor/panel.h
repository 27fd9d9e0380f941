// SPDX-License-Identifier: Apache-2.0
// Scalar access to packed tensors: weight panels (bit picture in quant/format.h) and activation rows
// (quant/activation.h). Stands here because the reference ops read codes and scales; fast kernels use only the
// geometry.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tensor/packed.h"
#include "tensor/parallel.h"

namespace nibble {

inline constexpr int panel_columns = 16;  ///< n per panel
inline constexpr int block_k = 32;        ///< k per code block
inline constexpr int max_group = 128;     ///< k per stored scale at most: a longer group is stored once per max_group

/// Where things are inside a packed weight of this shape, in bytes.
struct PanelGeometry {
  int64_t panels = 0, k_blocks = 0;   ///< ceil(n / 16), ceil(k / 32)
  int64_t groups = 0;                 ///< stored scale groups per panel: ceil(k / min(group, max_group)); 0 for floats
  int group = 0;                      ///< k per stored scale group; 0 for floats
  size_t code_block_bytes = 0;        ///< codes of one block of 32 k
  size_t scales_offset = 0;           ///< from the start of a panel
  size_t scale_group_bytes = 0;       ///< without sub_groups: one group's scales; with: one super-block's
  size_t panel_bytes = 0;             ///< multiple of 64
  size_t bytes() const { return static_cast<size_t>(panels) * panel_bytes; }
};
/// Throws Error when k doesn't fit the layout (k % group, k % (group * sub_groups)), when n or k is negative, or when
/// the layout itself is not one that quant/format.h describes.
PanelGeometry panel_geometry(const QuantLayout& layout, int64_t n, int64_t k);

/// The code at (k, column) of the panel that starts at `panel`, 0 .. 2^bits - 1. layout.bits must not be 0.
unsigned panel_code(const QuantLayout& layout, const std::byte* panel, int64_t k, int column);

/// Scale and minimum that apply to (k, column), rounded to f32 as quant/format.h prescribes.
struct PanelScale {
  float scale = 0;
  float minimum = 0;  ///< m of the arithmetic: stored, or -(d * z) for integer zero points; 0 when symmetric
};
PanelScale panel_scale(const QuantLayout& layout, const PanelGeometry& geometry, const std::byte* panel, int64_t k,
                       int column);

/// The weight at (k, column), rounded once after the scale's own rounding. layout.bits must not be 0.
float panel_weight(const QuantLayout& layout, const PanelGeometry& geometry, const std::byte* panel, int64_t k,
                   int column);

/// The element at (k, column) of a float panel (bits == 0).
float panel_float(const QuantLayout& layout, const std::byte* panel, int64_t k, int column);

/// The number that a code of a symmetric layout stands for, before its scale: code - 2^(bits-1), or the codebook's
/// value. Not for books of floats.
int panel_number(const QuantLayout& layout, unsigned code);

/// Values of QuantLayout::codebook; tensor/codebook.cpp has the numbers.
namespace books {
enum : uint8_t { none, nf4, iq4, fp4, b1, t2, iq1, iq2, iq3, odd, nf4_float, fp4_float, e4m3, e5m2 };
}

/// What the codes of a codebook stand for.
struct Codebook {
  std::string_view name;  ///< how names of formats begin
  int bits = 4;           ///< of a code: the first 2^bits values count
  int zero = 128;         ///< a power of two; fast kernels multiply the unsigned values[u] + zero
  int8_t values[16] = {};
  std::span<const int8_t> codes() const { return std::span(values).first(size_t{1} << bits); }
  int largest() const;    ///< of values[u] + zero
};
/// Throws Error on an index that is not in `books`, none included.
const Codebook& panel_codebook(int index);

/// A book of floats: its weights meet f32 activations, as unquantised ones do. w = value(u) * d rounded to f32, then to
/// layout.product, where d is what the panel stores: a scale times `unit`, so that a value is a few bits of its code.
struct FloatBook {
  std::string_view name;
  int bits = 4;               ///< of a code, 4 or 8
  float unit = 1;             ///< a power of two
  float least = 0, most = 1;  ///< of the magnitudes of what codes stand for, other than 0
  float values[16] = {};      ///< of codes of 4 bits
  int shift = 0;      ///< of codes of 8 bits: the code, then 24 zeros, shifted right by so much, its sign kept ...
  uint32_t mask = 0;  ///< ... and these bits of it are the bits of the value. Codes of NaN and infinities mean nothing

  float value(unsigned code) const;  ///< what the code stands for, divided by `unit`
};
/// nullptr for other indices.
const FloatBook* float_book(int index);
/// Unquantised weights and those with a book of floats.
bool float_weights(const QuantLayout& layout);
/// An f32 product as `type` holds it; see float_range_fits.
float rounded_product(DType type, float product);
/// Whether scales of these magnitudes, other than 0, can be stored: no product with a code is so large or so small that
/// `product` or f32 would not hold it like other numbers.
bool float_range_fits(const FloatBook& book, DType product, float least, float most);

/// What quantised weights need of the quantised activations that they read.
ActNeeds panel_act_needs(const QuantLayout& weights);

/// Row i of x (k floats) into row i of the activation tensor at `out` of m rows. Per act_group(group) of k: max =
/// max|x| and limit = 127 or 32767; 0 gives zeros and scale 0; else inverse = limit / max, scale = max / limit, q = x *
/// inverse rounded to nearest even and clamped to +-limit, every operation in f32. Sums as quant/activation.h says.
/// Every kernel must give the same bits; for values that are not finite, or a max so small that the inverse is
/// infinite, q is only within +-limit.
void quantize_act_row(const ActNeeds& needs, const float* x, int64_t m, int64_t k, int64_t i, std::byte* out);
/// The same for a row given by a function of the index, which is called several times per element.
void quantize_act_row(const ActNeeds& needs, FunctionRef<float(int64_t)> x, int64_t m, int64_t k, int64_t i,
                      std::byte* out);

}  // namespace nibble
