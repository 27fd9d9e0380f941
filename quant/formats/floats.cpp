// SPDX-License-Identifier: Apache-2.0
// Unquantised weights: one element is one block, packed as it is.
#include "quant/formats/formats.h"

namespace nibble::quant {

namespace formats {
constinit const QuantFormat f32 = weight_format("f32", {.group = 32, .bits = 0, .scale = DType::f32});
constinit const QuantFormat f16 = weight_format("f16", {.group = 32, .bits = 0, .scale = DType::f16});
constinit const QuantFormat bf16 = weight_format("bf16", {.group = 32, .bits = 0, .scale = DType::bf16});
}  // namespace formats

namespace {
void encode_f32(const float* in, std::byte* block) { store(block, *in); }
void encode_f16(const float* in, std::byte* block) { store_f16(block, *in); }
void encode_bf16(const float* in, std::byte* block) { store(block, f32_to_bf16(*in)); }
}  // namespace

namespace types {
constinit const BlockType f32 = {"f32", 0, 1, 4, &formats::f32, nullptr, encode_f32};
constinit const BlockType f16 = {"f16", 1, 1, 2, &formats::f16, nullptr, encode_f16};
constinit const BlockType bf16 = {"bf16", 30, 1, 2, &formats::bf16, nullptr, encode_bf16};
}  // namespace types

}  // namespace nibble::quant
