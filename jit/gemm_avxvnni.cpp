// SPDX-License-Identifier: Apache-2.0
// AVX-VNNI: vpdpbusd on ymm, VEX encoded. Weights are its unsigned operand; int32 sums start at the activations' own
// sum times the zero point, so symmetric codes need no other correction.
//
// 6 rows x 16 columns: ymm0-11 int32 sums | ymm12-13 weights | ymm14 broadcast | ymm15 temp. Twelve sums hide the
// latency of vpdpbusd (5 cycles, two a cycle). Inner loop per four k, two halves h and six rows r:
//   vmovups w_h, [panel]; vpbroadcastd b, [act + 4 r]; vpdpbusd s_rh, w_h, b
#include "jit/gemm_emitter.h"

namespace nibble::jit {

namespace {

class AvxVnniEmitter : public GemmEmitter {
 public:
  using GemmEmitter::GemmEmitter;

 private:
  Needs needs() const override { return {}; }
  bool sums_include_int_sums() const override { return true; }

  void begin_group(int a, int g) override {
    for (int r = 0; r < rows_; ++r) {
      for (int v = 0; v < vectors_; ++v) {
        if (shape_.int_sums) {
          vpbroadcastd(sum(r, v), act_int_sum(r, a, g));
        } else {
          zero(sum(r, v));
        }
      }
    }
  }

  void add_steps(int step, int steps, bool, bool) override {
    for (int s = step; s < step + steps; ++s) {
      for (int v = 0; v < vectors_; ++v) load_weights(weights(v), temp(), v, s);
      for (int r = 0; r < rows_; ++r) {
        vpbroadcastd(broadcast(), act_values(r, s));
        for (int v = 0; v < vectors_; ++v) vpdpbusd(sum(r, v), weights(v), broadcast(), Xbyak::VexEncoding);
      }
    }
  }
};

}  // namespace

extern const MicroKernel kernel_avxvnni;
const MicroKernel kernel_avxvnni = {
    .isa = Isa::avxvnni,
    .packed_rows = 4,
    .packed_panels = 1,
    .panel_rows = 6,
    .panel_panels = 1,
    .packed_limit = [](const QuantLayout&) { return 8; },
    .rejects = rejects_layout,
    .emit = [](const GemmKey& key) { return key.rows == 0 ? emit_expander(key) : AvxVnniEmitter(key).emit(); },
};

}  // namespace nibble::jit
