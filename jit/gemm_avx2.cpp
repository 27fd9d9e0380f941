// SPDX-License-Identifier: Apache-2.0
// AVX2 without VNNI: vpmaddubsw multiplies unsigned codes with signed activations and adds pairs in int16.
//
// How many products fit in int16 decides the plan; a pair is at most 2 * 127 * U, U = 2^bits - 1 or the largest value
// of a codebook plus its zero point:
//   block  U <= 16    eight steps fit: int16 sums stay in registers for a block of 32 k, then one vpmaddwd with ones
//          U <= 32    four steps fit: the same by 16 k
//          5, 6 bits  symmetric: sums start at minus the zero point times those of the activations, so eight steps of
//                     u - 16 fit (8 * 4064) and four of u - 32 (4 * 8128)
//   pair   U <= 64    two steps fit: two products are added, then vpmaddwd and an int32 add
//   single U <= 129   one product, vpmaddwd, an int32 add
//   sign   codebooks of more: |v| times the activation with the sign of the value v moved to it (vpsignb)
//   words  bits 7, 8  meet int16 activations: codes widened to 16 bits, vpmaddwd, two k at a time
//
// 4 rows x 16 columns, bits 4: ymm0-7 int16 sums | ymm8-9 weights | ymm10 broadcast | ymm11-12 products |
// ymm13 ones | ymm14- masks.
// Inner loop per four k (packed, odd step), two halves h and four rows r:
//   vmovups w_h, [codes]; vpsrlw w_h, w_h, 4; vpand w_h, w_h, mask
//   vpbroadcastd b, [act + 4 r]; vpmaddubsw p, w_h, b; vpaddw s_rh, s_rh, p
// Eight vpmaddubsw and eight vpaddw would fill the four vector ports of Zen 3 for 4 cycles, but vpaddw takes a multiply
// port as soon as it is ready: 1.57 pairs a cycle, 1.61 with all operands in registers (that is the measured peak), 2.0
// only if the additions do not wait for the products. No integer addition stays off both multiply ports: saturating
// ones run on nothing else (1.04 pairs). Only shuffles and shifts leave the products alone (2.0). Neither more temps
// nor another order of products and additions changes that. At group 32 the end of a group costs 8 x (vpmaddwd, vpaddd,
// FMA, FMA) per 64 vpmaddubsw and 56 vpaddw. Its latency is hidden: interleaving it with the products of other rows
// gained nothing, each instruction left out gains 3 to 10 %.
#include <algorithm>

#include "jit/gemm_emitter.h"

namespace nibble::jit {

namespace {

class Avx2Emitter : public GemmEmitter {
 public:
  explicit Avx2Emitter(const GemmKey& key)
      : GemmEmitter(key), plan_(plan()) {}

 private:
  enum class Plan { block, pair, single, sign, words };
  /// Steps of four k whose int16 sums cannot overflow.
  int fitting_steps() const {
    if (shape_.start_k) return shape_.start_k / 4;
    const int fit = 32767 / (2 * 127 * shape_.largest);
    return fit >= 8 ? 8 : fit >= 4 ? 4 : fit;
  }
  Plan plan() const {
    if (shape_.words) return Plan::words;
    if (shape_.signed_codes) return Plan::sign;
    const int fit = fitting_steps();
    return fit >= 4 || shape_.start_k ? Plan::block : fit >= 2 ? Plan::pair : Plan::single;
  }

  Needs needs() const override {
    switch (plan_) {
      case Plan::block: return {.temps = 2, .partial_sums = shape_.group > 4 * fitting_steps(), .constant = true};
      case Plan::pair: return {.weight_sets = 2, .broadcasts = 2, .temps = 2, .constant = true};
      case Plan::single: return {.temps = 2, .constant = true};
      case Plan::words: return {.weight_sets = word_sets(), .temps = 2};
      default: return {.weight_sets = 2, .constant = true};
    }
  }
  bool sums_include_int_sums() const override { return shape_.start_k != 0; }
  void begin_group(int, int) override {}

  void add_steps(int step, int steps, bool first, bool last) override {
    switch (plan_) {
      case Plan::block:
        for (int s = 0; s < steps; ++s) {
          const int in_sum = s % fitting_steps();
          block_step(step + s, in_sum == 0);
          const bool end = s + 1 == steps;
          if (end || in_sum + 1 == fitting_steps()) widen(first && s < fitting_steps(), last && end);
        }
        break;
      case Plan::pair:
        for (int s = 0; s < steps; s += 2) pair_step(step + s, first && s == 0);
        break;
      case Plan::single:
        for (int s = 0; s < steps; ++s) single_step(step + s, first && s == 0);
        break;
      case Plan::words:
        for (int s = 0; s < 2 * steps; ++s) word_step(step + s / 2, s % 2, first && s == 0);
        break;
      case Plan::sign:
        for (int s = 0; s < steps; ++s) sign_step(step + s, first && s == 0);
        break;
    }
  }

  void load_constant() override { vmovups(vec(constant_register()), constant(0x00010001u)); }

  // dst = sums of adjacent int16. Ones from memory cost 15 % of the whole kernel at group 32.
  void add_neighbours(const Xbyak::Xmm& dst, const Xbyak::Xmm& src) {
    if (constant_register() >= 0) {
      vpmaddwd(dst, src, vec(constant_register()));
    } else {
      vpmaddwd(dst, src, constant(0x00010001u));
    }
  }

  // Two products, then two sums: in turns the four vector ports are filled worse (7 % measured on Zen 3).
  void block_step(int step, bool first) {
    for (int v = 0; v < vectors_; ++v) load_weights(weights(v), temp(), v, step);
    const bool alone = first && !shape_.start_k;
    for (int r = 0; r < rows_; ++r) {
      vpbroadcastd(broadcast(), act_values(r, step));
      for (int v = 0; v < vectors_; ++v) vpmaddubsw(alone ? sum(r, v) : temp(v), weights(v), broadcast());
      if (alone) continue;
      if (first) vpbroadcastd(broadcast(), act_start(r, step));
      for (int v = 0; v < vectors_; ++v) vpaddw(sum(r, v), first ? broadcast() : sum(r, v), temp(v));
    }
  }

  void widen(bool first, bool last) {
    for (int r = 0; r < rows_; ++r) {
      for (int v = 0; v < vectors_; ++v) {
        add_neighbours(sum(r, v), sum(r, v));
        if (!first) load_partial(sum(r, v), r, v);
        if (!last) store_partial(sum(r, v), r, v);
      }
    }
  }

  // sum += pairs of the int16 products in `product`
  void add_product(const Xbyak::Xmm& product, int r, int v, bool first) {
    add_neighbours(first ? sum(r, v) : product, product);
    if (!first) vpaddd(sum(r, v), sum(r, v), product);
  }

  void pair_step(int step, bool first) {
    for (int i = 0; i < 2; ++i) {
      for (int v = 0; v < vectors_; ++v) load_weights(weights(v, i), temp(), v, step + i);
    }
    for (int r = 0; r < rows_; ++r) {
      vpbroadcastd(broadcast(0), act_values(r, step));
      vpbroadcastd(broadcast(1), act_values(r, step + 1));
      for (int v = 0; v < vectors_; ++v) {
        vpmaddubsw(temp(0), weights(v, 0), broadcast(0));
        vpmaddubsw(temp(1), weights(v, 1), broadcast(1));
        vpaddw(temp(0), temp(0), temp(1));
        add_product(temp(0), r, v, first);
      }
    }
  }

  void single_step(int step, bool first) {
    for (int v = 0; v < vectors_; ++v) load_weights(weights(v), temp(), v, step);
    for (int r = 0; r < rows_; ++r) {
      vpbroadcastd(broadcast(), act_values(r, step));
      for (int v = 0; v < vectors_; v += 2) {
        for (int i = v; i < v + 2; ++i) vpmaddubsw(temp(i - v), weights(i), broadcast());
        for (int i = v; i < v + 2; ++i) add_product(temp(i - v), r, i, first);
      }
    }
  }

  void word_step(int step, int half, bool first) {
    load_words(step, half);
    for (int r = 0; r < rows_; ++r) {
      vpbroadcastd(broadcast(), act_values(r, step, half));
      for (int v = 0; v < vectors_; ++v) vpmaddwd(first ? sum(r, v) : temp(v), word_weights(v, half), broadcast());
      if (first) continue;
      for (int v = 0; v < vectors_; ++v) vpaddd(sum(r, v), sum(r, v), temp(v));
    }
  }

  void sign_step(int step, bool first) {
    for (int v = 0; v < vectors_; ++v) {
      load_weights(weights(v), temp(), v, step);
      vpabsb(weights(v, 1), weights(v));
    }
    for (int r = 0; r < rows_; ++r) {
      vpbroadcastd(broadcast(), act_values(r, step));
      for (int v = 0; v < vectors_; ++v) {
        vpsignb(temp(), broadcast(), weights(v));
        vpmaddubsw(temp(), weights(v, 1), temp());
        add_product(temp(), r, v, first);
      }
    }
  }

  const Plan plan_;
};

// Measured on Zen 3: one plane is unpacked as fast as expanded bytes are fetched, several planes are not.
int packed_limit(const QuantLayout& w) {
  const bool one_plane = w.bits == 1 || w.bits == 2 || w.bits == 4 || w.bits == 8;
  return one_plane && !w.codebook ? 32 : 8;
}

}  // namespace

extern const MicroKernel kernel_avx2;
const MicroKernel kernel_avx2 = {
    .isa = Isa::avx2,
    .packed_isa = Isa::avx2,
    .packed_rows = 4,
    .packed_panels = 1,
    .panel_rows = 4,
    .panel_panels = 1,
    .packed_limit = packed_limit,
    .rejects = rejects_layout,
    .emit = [](const GemmKey& key) { return key.rows == 0 ? emit_expander(key) : Avx2Emitter(key).emit(); },
};

}  // namespace nibble::jit
