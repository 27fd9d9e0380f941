// SPDX-License-Identifier: Apache-2.0
// Formats without a file block type of their own: for quantising at load, and so that tests reach every corner of the
// layout family. Scales are f16 unless the name says otherwise; s = symmetric, z = minimum, i = integer zero point.
#include "quant/formats/formats.h"

namespace nibble::quant::formats {

using enum ZeroPoint;

constinit const QuantFormat q8s_row = weight_format("q8s_row", {.group = 0, .bits = 8, .scale = DType::f32});
constinit const QuantFormat q8s_g128 = weight_format("q8s_g128", {.group = 128, .bits = 8});
constinit const QuantFormat q8z_g32 = weight_format("q8z_g32", {.group = 32, .bits = 8, .zero_point = minimum});
constinit const QuantFormat q7s_g32 = weight_format("q7s_g32", {.group = 32, .bits = 7});
constinit const QuantFormat q6s_g64 = weight_format("q6s_g64", {.group = 64, .bits = 6});
constinit const QuantFormat q4s_g16 = weight_format("q4s_g16", {.group = 16, .bits = 4});
constinit const QuantFormat q4s_g64 = weight_format("q4s_g64", {.group = 64, .bits = 4});
constinit const QuantFormat q4s_g128 = weight_format("q4s_g128", {.group = 128, .bits = 4});
constinit const QuantFormat q4s_row = weight_format("q4s_row", {.group = 0, .bits = 4, .scale = DType::f32});
constinit const QuantFormat q4s_g32_bf16 =
    weight_format("q4s_g32_bf16", {.group = 32, .bits = 4, .scale = DType::bf16});
constinit const QuantFormat q4s_g32_f32 = weight_format("q4s_g32_f32", {.group = 32, .bits = 4, .scale = DType::f32});
constinit const QuantFormat q4z_g128 = weight_format("q4z_g128", {.group = 128, .bits = 4, .zero_point = minimum});
constinit const QuantFormat q4z_g64_f32 =
    weight_format("q4z_g64_f32", {.group = 64, .bits = 4, .zero_point = minimum, .scale = DType::f32});
constinit const QuantFormat q4i_g32_f32 =
    weight_format("q4i_g32_f32", {.group = 32, .bits = 4, .zero_point = integer, .scale = DType::f32});
constinit const QuantFormat q4i_g128 = weight_format("q4i_g128", {.group = 128, .bits = 4, .zero_point = integer});
constinit const QuantFormat nf4_g64 = weight_format("nf4_g64", {.group = 64, .bits = 4, .codebook = books::nf4});
constinit const QuantFormat q3s_g32 = weight_format("q3s_g32", {.group = 32, .bits = 3});
constinit const QuantFormat q3s_g64 = weight_format("q3s_g64", {.group = 64, .bits = 3});
constinit const QuantFormat q2s_g64 = weight_format("q2s_g64", {.group = 64, .bits = 2});
constinit const QuantFormat q2z_g16_bf16 =
    weight_format("q2z_g16_bf16", {.group = 16, .bits = 2, .zero_point = minimum, .scale = DType::bf16});
constinit const QuantFormat q1s_g32 = weight_format("q1s_g32", {.group = 32, .bits = 1});

}  // namespace nibble::quant::formats
