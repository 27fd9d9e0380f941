// SPDX-License-Identifier: Apache-2.0
// AVX512-VNNI: vpdpbusd on zmm, one register per panel of 16 columns.
//
// 8 rows x 48 columns (prompts): zmm0-23 int32 sums | zmm24-26 weights | zmm27 broadcast | zmm28 temp | t and totals in
// L1. Per four k: 3 + 8 loads for 24 vpdpbusd (12 cycles on two ports). Groups of 32 end in 24 x (FMA, FMA) on the same
// ports as 192 vpdpbusd: 80 % is the ceiling there, 94 % at group 128 (docs/benchmarks.md).
// 4 rows x 32 columns (few rows, packed): zmm0-7 sums | zmm8-9 weights | zmm10 broadcast | zmm11 temp | t, totals and
// masks in the rest. Inner loop per four k, panels p and rows r:
//   vpsrlw w_p, [codes + p * stride], 4; vpandd w_p, w_p, mask; vpbroadcastd b, [act + 4 r]; vpdpbusd s_rp, w_p, b
#include "jit/gemm_vnni.h"

namespace nibble::jit {

extern const MicroKernel kernel_avx512vnni;
const MicroKernel kernel_avx512vnni = {
    .isa = Isa::avx512vnni,
    .packed_isa = Isa::avx512vnni,
    .packed_rows = 4,
    .packed_panels = 2,
    .panel_rows = 8,
    .panel_panels = 3,
    .packed_limit = [](const QuantLayout&) { return 8; },
    .rejects = rejects_layout,
    .emit = [](const GemmKey& key) { return key.rows == 0 ? emit_expander(key) : VnniEmitter(key).emit(); },
};

}  // namespace nibble::jit
