// SPDX-License-Identifier: Apache-2.0
// AVX512-VNNI: vpdpbusd on zmm, one register per panel of 16 columns.
//
// 8 rows x 48 columns (prompts): zmm0-23 int32 sums | zmm24-26 weights | zmm27 broadcast | zmm28 temp | t and totals in
// L1. Per four k: 3 + 8 loads for 24 vpdpbusd (12 cycles). End of a group of 32: 24 x (vcvtdq2ps, FMA) on the same two
// ports as 192 vpdpbusd: 80 % is the ceiling there, 94 % at group 128.
// 4 rows x 32 columns (few rows, packed): zmm0-7 sums | zmm8-9 weights | zmm10 broadcast | zmm11 temp | t, totals and
// masks in the rest. Inner loop per four k, panels p and rows r:
//   vpsrlw w_p, [codes + p * stride], 4; vpandd w_p, w_p, mask; vpbroadcastd b, [act + 4 r]; vpdpbusd s_rp, w_p, b
#include "jit/gemm_emitter.h"

namespace nibble::jit {

namespace {

class Avx512VnniEmitter : public GemmEmitter {
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
        for (int v = 0; v < vectors_; ++v) vpdpbusd(sum(r, v), weights(v), broadcast());
      }
    }
  }
};

}  // namespace

extern const MicroKernel kernel_avx512vnni;
const MicroKernel kernel_avx512vnni = {
    .isa = Isa::avx512vnni,
    .packed_rows = 4,
    .packed_panels = 2,
    .panel_rows = 8,
    .panel_panels = 3,
    .packed_limit = [](const QuantLayout&) { return 8; },
    .rejects = rejects_layout,
    .emit = [](const GemmKey& key) { return key.rows == 0 ? emit_expander(key) : Avx512VnniEmitter(key).emit(); },
};

}  // namespace nibble::jit
