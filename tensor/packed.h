// SPDX-License-Identifier: Apache-2.0
// What a packed tensor is made of, as plain data. The formats themselves live in quant/; the types stand here
// because a TensorDesc names its format and the reference ops must be able to read one.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "tensor/dtype.h"

namespace nibble {

/// How a stored code u (unsigned, `bits` wide) becomes a weight, with d the scale of its group:
///   symmetric  w = d * (u - 2^(bits-1))
///   minimum    w = d * u + m            m stored beside d, in the same type
///   integer    w = d * (u - z)          z stored as one unsigned byte per group
enum class ZeroPoint : uint8_t { symmetric, minimum, integer };

/// The family that every weight format is turned into. docs/formats.md has the bit pictures.
struct QuantLayout {
  uint16_t group = 32;      ///< weights along k that share a scale: 16, 32, 64, 128; 0 = the whole row
  uint8_t bits = 4;         ///< width of a code, 1 to 8; 0 = not quantised: elements of type `scale`
  ZeroPoint zero_point = ZeroPoint::symmetric;
  DType scale = DType::f16;  ///< f16, bf16 or f32
  uint8_t sub_groups = 0;   ///< 0: a scale per group. Else groups per super-block: one `scale` (and minimum) for the
                            ///< super-block times one int8 multiplier (each) per group
  uint8_t codebook = 0;     ///< 0: codes are numbers. Else one of nibble::books (tensor/panel.h): w = d * book[u]
  DType product = DType::f32;  ///< of a book of floats: what d * book[u] is rounded to; f32, f16 or bf16
  uint8_t offset = 0;       ///< of activations, act_format below; 0 for weights
  uint8_t spare = 0;        ///< keeps the representation free of padding
  bool operator==(const QuantLayout&) const = default;
};
static_assert(std::has_unique_object_representations_v<QuantLayout>);

/// One format of packed tensors: weights (quant/format.h) or quantised activations (quant/activation.h).
struct QuantFormat {
  std::string_view name;
  QuantLayout layout;
  /// Bytes of an (n, k) tensor. Throws Error when the format can't hold that shape.
  size_t (*bytes)(const QuantFormat&, int64_t n, int64_t k) = nullptr;
  /// rows [row, row + rows) of the (n, k) tensor at `data` as floats, row-major into `out` (rows, k).
  void (*dequantize)(const QuantFormat&, const std::byte* data, int64_t n, int64_t k, int64_t row, int64_t rows,
                     float* out) = nullptr;
};

/// What weights need of the quantised activations that they read.
struct ActNeeds {
  int group = 32;   ///< 16, 32, 64 or 128: k per sum
  int offset = 8;   ///< zero point of symmetric codes (2^(bits-1), or the codebook's); 0 = float sums
  int bits = 8;     ///< of a value: 8, or 16 for weights of 7 or 8 bits
  auto operator<=>(const ActNeeds&) const = default;
  int limit() const { return bits == 16 ? 32767 : 127; }  ///< largest value
};

/// The format of activations ("act_g32_z8", "act_g32_z128_i16"). Static; layout.group = group, layout.bits = bits and
/// layout.offset = log2(offset) + 1, or 0 for offset 0. quant/activation.h says what the bytes are. Throws Error on
/// other groups and widths and on an offset that is neither 0 nor a power of two up to 128.
const QuantFormat& act_format(const ActNeeds& needs);

/// True for the formats that act_format returns.
bool is_act_format(const QuantFormat& format);
/// Inverse of act_format; throws Error if the format is not an activation format.
ActNeeds act_needs_of(const QuantFormat& format);

/// k per activation scale for weights with scale groups of `group`: their own groups, but at least 32.
constexpr int act_group(int group) { return group < 32 ? 32 : group; }

/// Where the regions of an (m, k) activation tensor are; quant/activation.h has the picture. k_padded counts values.
struct ActRegions {
  int64_t k_padded = 0, scales_per_row = 0, sums_per_row = 0;
  size_t scales_offset = 0, sums_offset = 0, bytes = 0;  ///< all multiples of 64
};
ActRegions act_regions(const ActNeeds& needs, int64_t m, int64_t k);

}  // namespace nibble
