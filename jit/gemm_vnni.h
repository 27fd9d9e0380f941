// SPDX-License-Identifier: Apache-2.0
// The inner product of both instruction sets that have vpdpbusd. Weights are its unsigned operand; int32 sums start at
// the activations' own sum times the zero point, so symmetric codes need no other correction. int16 activations meet
// codes widened to 16 bits in vpdpwssd, two k at a time.
#pragma once

#include "jit/gemm_emitter.h"

namespace nibble::jit {

class VnniEmitter : public GemmEmitter {
 public:
  using GemmEmitter::GemmEmitter;

 private:
  Needs needs() const override { return {.weight_sets = shape_.words ? word_sets() : 1}; }
  bool sums_include_int_sums() const override { return true; }

  void begin_group(int a, int g) override {
    for (int r = 0; r < rows_; ++r) {
      for (int v = 0; v < vectors_; ++v) {
        if (shape_.int_sums) {
          vpbroadcastd(sum(r, v), act_int_sum(r, a, g));
        } else if (biased_sums(g)) {
          vmovups(sum(r, v), constant(integer_bias));
        } else {
          zero(sum(r, v));
        }
      }
    }
  }

  void add_steps(int step, int steps, bool, bool) override {
    const auto encoding = evex() ? Xbyak::EvexEncoding : Xbyak::VexEncoding;
    for (int s = step; s < step + steps; ++s) {
      if (shape_.words) {
        for (int half = 0; half < 2; ++half) {
          load_words(s, half);
          for (int r = 0; r < rows_; ++r) {
            vpbroadcastd(broadcast(), act_values(r, s, half));
            for (int v = 0; v < vectors_; ++v) vpdpwssd(sum(r, v), word_weights(v, half), broadcast(), encoding);
          }
        }
        continue;
      }
      for (int v = 0; v < vectors_; ++v) load_weights(weights(v), temp(), v, s);
      for (int r = 0; r < rows_; ++r) {
        vpbroadcastd(broadcast(), act_values(r, s));
        for (int v = 0; v < vectors_; ++v) vpdpbusd(sum(r, v), weights(v), broadcast(), encoding);
      }
    }
  }
};

}  // namespace nibble::jit
