// SPDX-License-Identifier: Apache-2.0
// The part of an integer GEMM kernel that all instruction sets share: loops over k, scales, minima, sums and tails.
// Subclasses own the inner product and say how many registers it needs.
#pragma once

#include "jit/emit_finish.h"
#include "jit/gemm_key.h"
#include "jit/generator.h"
#include "jit/microkernel.h"
#include "jit/unpack.h"

namespace nibble::jit {

/// Vector registers of one kernel, in this order from 0 up:
///   sums rows x vectors | weights sets x vectors | broadcasts | temps | minima (packed) | the subclass's constant, t,
///   totals, partial sums as far as they fit | the rest holds masks and tables
/// What does not fit lives in L1: t and the partial sums in the frame, totals in the caller's tile.
class GemmEmitter : public Generator {
 public:
  explicit GemmEmitter(const GemmKey& key);
  virtual ~GemmEmitter() = default;
  Code emit();

 protected:
  struct Needs {
    int weight_sets = 1;         ///< registers per vector for weights
    int broadcasts = 1, temps = 1;
    bool partial_sums = false;   ///< a group longer than a block is summed in pieces
    bool constant = false;       ///< wants constant_register()
  };
  virtual Needs needs() const = 0;
  /// Fills the constant register; called only if there is one.
  virtual void load_constant() {}
  /// Clears or initialises the sums of group `g` of record `a` of the unit.
  virtual void begin_group(int a, int g) = 0;
  /// Adds `steps` steps of four k from step `step` of the unit on. `first`: of its group; `last`: none follows for
  /// sure. Leaves the whole sum of the group so far in sum().
  virtual void add_steps(int step, int steps, bool first, bool last) = 0;
  /// The sums of group `g` carry integer_bias when it ends: those that are the first of their activation scale.
  bool biased_sums(int g) const {
    return key_.source == Source::panel && shape_.biased_sums && g % shape_.groups_per_scale == 0;
  }
  /// The int32 sums of the group are complete but for the activations' own (GemmShape::int_sums).
  virtual bool sums_include_int_sums() const = 0;

  const GemmKey key_;
  const GemmShape shape_;
  const int rows_, vectors_;  ///< vectors per row

  Xbyak::Xmm sum(int r, int v) const { return vec(r * vectors_ + v); }
  Xbyak::Xmm weights(int v, int set = 0) const { return vec(weights_ + set * vectors_ + v); }
  Xbyak::Xmm broadcast(int i = 0) const { return vec(broadcasts_ + i); }
  Xbyak::Xmm temp(int i = 0) const { return vec(temps_ + i); }
  /// -1 when there was no room.
  int constant_register() const { return constant_; }
  void load_weights(const Xbyak::Xmm& dst, const Xbyak::Xmm& tmp, int v, int step);
  /// GemmShape::words: two inner products of two k each make a step. The weights of half 0, 1 in turn; they are in
  /// word_weights(v, half) then. Packed weights need Needs::weight_sets = word_sets().
  void load_words(int step, int half);
  Xbyak::Xmm word_weights(int v, int half) const { return weights(v, key_.source == Source::packed ? half : 0); }
  int word_sets() const { return key_.source == Source::packed ? 2 : 1; }
  Xbyak::Address act_values(int r, int step, int half = 0) const;
  Xbyak::Address act_int_sum(int r, int a, int g) const;
  /// GemmShape::start_k; `step` is the first of so many k.
  Xbyak::Address act_start(int r, int step) const;
  /// Where the sum of the blocks before this one waits (Needs::partial_sums); a register or memory.
  void load_partial(const Xbyak::Xmm& sum, int r, int v);
  void store_partial(const Xbyak::Xmm& sum, int r, int v);

 private:
  struct Place {
    int first_register = -1;  ///< -1: memory
    Xbyak::RegExp memory;
    bool in_registers() const { return first_register >= 0; }
  };
  void plan_registers();
  bool take_registers(Place& place);
  Xbyak::Xmm at(const Place& place, int r, int v) const { return vec(place.first_register + r * vectors_ + v); }
  Xbyak::Address memory(const Place& place, int r, int v) const;
  void start_totals();
  void store_totals();
  void end_totals();
  Totals finish_totals() const { return {rows_, vectors_, totals_.first_register, out_}; }
  void main_loop();
  void unit(bool tail);
  void group(int a, int g, bool tail, Xbyak::Label& scale_done);
  void prefetch_block(int block);
  void prefetch_scales();
  void load_scales(int a, int g);
  void end_group(int a, int g);
  void end_scale(int a, int s);
  void add_minimum(const Xbyak::Xmm& t, int v, int a, int g);
  /// Of expanded weights: what starts at panel_d, panel_m or panel_bias.
  Xbyak::Address panel_floats(int region, int v, int a, int g) const;
  Xbyak::RegExp panel_base(const Xbyak::Reg64& base, int v) const;
  int column(int v) const { return evex() ? 0 : v % 2 * 8; }
  int panel(int v) const { return evex() ? v : v / 2; }

  Unpack unpack_;
  int used_ = 0, weights_ = 0, broadcasts_ = 0, temps_ = 0, minima_ = -1, constant_ = -1, frame_ = 0;
  Place t_, totals_, partial_;
  const Xbyak::Reg64 act_ = rsi, codes_ = rdx, scales_ = rcx, out_ = r8, units_ = r9, tail_ = r10;
  const Xbyak::Reg64 prefetch_ = r11, stride_ = rax, stride3_ = rbx, ahead_ = r13;
};

/// The expander of a key with rows == 0; the same for every instruction set but for the registers' width.
Code emit_expander(const GemmKey& key);

/// Why no kernel of any instruction set can be made, or nullptr.
const char* rejects_layout(const QuantLayout& w);

}  // namespace nibble::jit
