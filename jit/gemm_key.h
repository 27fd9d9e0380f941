// SPDX-License-Identifier: Apache-2.0
// What the bytes of an integer GEMM kernel depend on, its name, and the sizes that emitter and caller both derive from
// it.
//
// A kernel multiplies a tile of `rows` activation rows with `panels` weight panels of 16 columns and adds to a tile of
// f32 totals, (rows, panels * 16) contiguous; the call with the last of k finishes them
// (jit/epilogue.h). rows == 0 is the expander: packed weights of one panel in, expanded out.
//
// k is cut into records of 128 (the last one shorter).
// Activation tile: per record `act_bytes`, row r of R innermost:
//   int8 values[32 steps][R][4]   or, for int16 activations, int16 values[32 steps][2 halves][R][2]: of the step's four
//   k the first and third, then the second and fourth; for amxint8 int8 values[R][128], zeros behind the end of k, so
//   that a part of each row is a tile of A; then, where the weights need them, int32 sums[groups][R], the same +
//   integer_bias, float sums[groups][R], then float scales[activation groups][R], then int16 starts[128 /
//   start_k][R][2]: -zero_point * (sum of the values with k % 4 < 2, of those with k % 4 >= 2) (amxint8 pads a record
//   to whole lines).
// Expanded weights, `panels` panels P side by side: per record `panel_bytes`:
//   uint8 codes[32 steps][P][16 columns][4]   or, to meet int16 activations, uint16 codes[32 steps][2
//   halves][P][16][2]; codes of a symmetric format less their zero point for amxint8, which multiplies signed by
//   signed; float d[groups][P][16]   and with a minimum float m[groups][P][16], with biased_sums float integer_bias *
//   d[groups][P][16] (only the first group of an activation scale needs its own)
//
// Biased sums: an int32 sum i, less than 2^22, added to the bits of the float 1.5 * 2^23 is the float 1.5 * 2^23 + i.
// fma(that, d, -(1.5 * 2^23 * d)) rounds i * d once, as float(i) * d does, if the product in it is exact: d of an f16
// and an int8 multiplier has at most 18 bits. That saves the conversion.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include "jit/epilogue.h"
#include "tensor/cpu.h"
#include "tensor/packed.h"

namespace nibble::jit {

inline constexpr float integer_bias = 12582912.0f;  ///< 1.5 * 2^23

/// Where the weights come from: packed panels as quant/format.h has them, or expanded as above.
enum class Source : uint8_t { packed, panel };

struct GemmKey {
  Isa isa = Isa::generic;
  Source source = Source::packed;
  uint8_t rows = 1;
  uint8_t panels = 1;
  QuantLayout w = {};
  Epilogue epilogue = {};  ///< how complete totals are finished (GemmArgs::finish)
  bool operator==(const GemmKey&) const = default;
};
static_assert(std::has_unique_object_representations_v<GemmKey>);

/// "gemm_i8_q4s_g32_f32_4x16x4_avx2", "gemm_i16_..."; docs/kernel-names.md. Different keys have different names.
std::string name(const GemmKey& key);

/// What is left of a layout after expansion: all formats with equal code width, group and zero point share kernels.
/// `scale` says what the f32 scales were made from: f16 if that allows biased sums, else f32.
QuantLayout expanded_layout(Isa isa, const QuantLayout& w);

struct GemmShape {
  explicit GemmShape(const GemmKey& key);

  int group;           ///< k per stored group, 16 to 128
  int groups_per_record;  ///< stored groups per record
  int groups_per_scale;   ///< stored groups per activation scale: 2 for groups of 16, else 1
  int scales_per_record;  ///< activation scales per record
  bool whole_rows;     ///< the last group may end at any block of 32
  int zero_point;      ///< of the unsigned codes of symmetric layouts, or of the codebook
  int largest;         ///< unsigned code or, with a codebook, value plus zero point
  bool words;          ///< int16 activations meet codes of 16 bits
  bool signed_codes;   ///< codes reach the multiplier as u - zero_point (vpmaddubsw would overflow, tdpbssd wants it)
  bool row_values;     ///< activation values stand row by row (AMX)
  bool minimum;        ///< two float terms per group
  bool int_sums, float_sums;  ///< what the activation tile carries
  bool biased_sums;    ///< expanded weights: sums become floats by their bias, see above
  bool carries_biased; ///< the activation tile has int_sums a second time, with integer_bias added
  int start_k;  ///< not 0: int16 sums of so many k start at the tile's `starts`, which takes the place of int_sums

  int unit_k;   ///< k of one pass of the main loop: a record or a super-block, the longer one
  int tail_k;   ///< k that one count of GemmArgs::tail stands for

  int code_block_bytes;         ///< packed: codes of 32 k
  int scale_bytes;              ///< packed: one scale record, see PanelGeometry::scale_group_bytes
  int unit_scale_bytes;         ///< packed: scales of one unit
  int act_int_sums, act_biased_sums, act_float_sums, act_scales, act_starts,
      act_bytes;                                            ///< offsets in an activation record, and its size
  int panel_d, panel_m, panel_bias, panel_bytes;            ///< the same for an expanded record
};

}  // namespace nibble::jit
