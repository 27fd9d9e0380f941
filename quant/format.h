// SPDX-License-Identifier: Apache-2.0
// Weight formats and the one packed layout they all share.
//
// A packed (n, k) weight is cut along n into panels of 16 columns (the last one padded with zero scales). A panel is
// contiguous, 64-byte aligned: first all codes, then all scales. k is padded to a multiple of 32 (padded activations
// are zero, so padded codes never count).
//
//   codes: per block of 32 k, bit planes from wide to narrow, c = column 0..15, j = 0..3:
//     8-bit plane (bits == 8)   8 lines of 64 bytes; line l, byte 4c+j: k = 4l + j
//     4-bit plane (bits & 4)    4 lines; line l, byte 4c+j: low nibble k = 8l + j, high nibble k = 8l + 4 + j
//     2-bit plane (bits & 2)    2 lines; line l, byte 4c+j: bits 2s..2s+1 are k = 16l + 4s + j, s = 0..3
//     1-bit plane (bits & 1)    1 line;  byte 4c+j: bit s is k = 4s + j, s = 0..7
//     the first plane holds the low bits of a code, the next ones the bits above.
//   scales without sub_groups: per group 16 scales, then (minimum) 16 minima of the same type or (integer) 16 bytes.
//     A group longer than 128 (a whole row) is stored once per 128 k, so a scale never outlives an activation's.
//   scales with sub_groups: per super-block 16 scales [, 16 minima], then per group 16 int8 multipliers
//     [, 16 int8 multipliers of the minimum].
//   bits == 0 (floats): per k, 16 elements of type `scale`; no padding of k.
//
// The arithmetic of a quantised matmul is fixed, so that every kernel, tile and thread count gives the same bits:
//   total = 0
//   for each activation group A of the row, max(32, group) k, in order:          (the last one may be shorter)
//     t = 0
//     for each weight group g in A, in order:
//       symmetric:         t = fma(float(sum_k u*q - zp * sum_k q), d[g], t)         the integer sum is exact
//       minimum, integer:  t = fma(float(sum_k u*q), d[g], t); t = fma(float(sum_k q), m[g], t)
//     total = fma(t, act_scale[A], total)
// with q of int8 or, for codes of 7 and 8 bits, int16 (quant/activation.h); float() of an integer rounds to nearest
// even; d[g] = float(scale) or float(scale) * multiplier rounded once to f32, m likewise, and m = -(d * z) for integer
// zero points; with a codebook u is book[u] + zp and zp the book's. Float weights: total = fma(x[k], w[k], total), k in
// order; with a codebook of floats (tensor/panel.h: FloatBook) w = value(u) * d, rounded to f32 and then to `product`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "tensor/packed.h"
#include "tensor/panel.h"
#include "tensor/parallel.h"

namespace nibble::quant {

using nibble::act_group;
using nibble::block_k;
using nibble::Codebook;
using nibble::max_group;
using nibble::panel_columns;
using nibble::panel_geometry;
using nibble::PanelGeometry;

/// A file's block type (GGUF): how blocks of `block_elements` weights along k stand in the file.
struct BlockType {
  std::string_view name;     ///< "q4_0", lower case
  uint32_t gguf_id;          ///< ggml type id (ggml.h)
  int block_elements;
  size_t block_bytes;
  const QuantFormat* format; ///< the packed format it becomes
  /// Codes and scales of one block, exactly; see BlockCodes. Null for float types: an element is its own block.
  void (*decode)(const std::byte* block, struct BlockCodes& out);
  /// Writes `block_elements` floats as one block, bit for bit as ggml's reference quantiser does. May be null.
  void (*encode)(const float* in, std::byte* block);
  /// The inverse of decode: the block that has these codes and scales, which must be numbers it can hold. Null where no
  /// search over codes and scales is made for the type (quant/fit.h).
  void (*write)(const struct BlockCodes& in, std::byte* block) = nullptr;
  int multiplier_low = 0, multiplier_high = 0;  ///< with sub_groups: of a group's multipliers
  /// The nearest scale that a block can hold, where those of format->layout.scale are finer; null: they are not.
  float (*round_scale)(float) = nullptr;
};

/// One decoded block, ready for the packer. Only the fields that the format's layout has are set.
struct BlockCodes {
  uint8_t codes[256];
  float scale[16], minimum[16];     ///< one per group, or one super value in [0] with sub_groups; exact in layout.scale
  int8_t sub_scale[16], sub_minimum[16];
};

std::span<const QuantFormat* const> all_formats();
/// Also those made of their layout (quant/codes.h). Throws Error naming the format and the listed ones.
const QuantFormat& find_format(std::string_view name);
std::span<const BlockType* const> all_block_types();
/// nullptr when unknown.
const BlockType* find_block_type(uint32_t gguf_id);
/// Our own block types, "q4_g64": symmetric, one group a block. GGUF has no ids for them; docs/formats.md says how they
/// stand in a file. encode is null, see quant/fit.h, but for FP8.
std::span<const BlockType* const> native_block_types();
const BlockType* find_native_type(std::string_view name);  ///< nullptr when unknown
inline constexpr uint32_t native_gguf_id = 24;             ///< that of I8, the type their bytes are stored under

/// Packs rows [row, row + rows) of a file tensor (n, k) of `type` into `packed` (whole (n, k), type.format). `blocks`
/// points at row `row`. row must be a multiple of 16 and rows too unless they reach n. Threads may pack disjoint
/// ranges.
void pack_rows(const BlockType& type, const std::byte* blocks, int64_t n, int64_t k, int64_t row, int64_t rows,
               std::byte* packed);
/// The values of file blocks as floats: (rows, k) row-major; what packed weights are checked against.
void dequantize_blocks(const BlockType& type, const std::byte* blocks, int64_t elements, float* out);
/// Quantises floats (rows, k) straight into a packed tensor: round to nearest, scale from the absolute maximum
/// (symmetric, codebook) or the range (minimum, integer); no weight moves by more than half a step plus what rounding
/// the scale costs. Same row rules as pack_rows. Throws Error for layouts with sub_groups, for a weight that is not
/// finite and for one too large for the scale's type.
void quantize_rows(const QuantFormat& format, const float* in, int64_t n, int64_t k, int64_t row, int64_t rows,
                   std::byte* packed);

}  // namespace nibble::quant
