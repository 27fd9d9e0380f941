// SPDX-License-Identifier: Apache-2.0
// AVX-VNNI: vpdpbusd on ymm, VEX encoded.
//
// 6 rows x 16 columns: ymm0-11 int32 sums | ymm12-13 weights | ymm14 broadcast | ymm15 temp. Twelve sums hide the
// latency of vpdpbusd (5 cycles, two a cycle). Inner loop per four k, two halves h and six rows r:
//   vmovups w_h, [panel]; vpbroadcastd b, [act + 4 r]; vpdpbusd s_rh, w_h, b
#include "jit/gemm_vnni.h"

namespace nibble::jit {

extern const MicroKernel kernel_avxvnni;
const MicroKernel kernel_avxvnni = {
    .isa = Isa::avxvnni,
    .packed_isa = Isa::avxvnni,
    .packed_rows = 4,
    .packed_panels = 1,
    .panel_rows = 6,
    .panel_panels = 1,
    .packed_limit = [](const QuantLayout&) { return 8; },
    .rejects = rejects_layout,
    .emit = [](const GemmKey& key) { return key.rows == 0 ? emit_expander(key) : VnniEmitter(key).emit(); },
};

}  // namespace nibble::jit
