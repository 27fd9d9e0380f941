// SPDX-License-Identifier: Apache-2.0
#include "jit/emit_finish.h"

#include <array>
#include <bit>
#include <span>
#include <vector>

#include "jit/emit_math.h"
#include "tensor/check.h"

namespace nibble::jit {

namespace {

using Xbyak::util::ptr;

/// rax result | rcx residual | rdx bias | rsi gate totals | r9 gate bias | r10 rows left | r11, r12 scratch. Where a
/// tail is masked one vector register holds the number of columns and k7 or another one the mask.
class Finisher {
 public:
  Finisher(Generator& g, const Epilogue& e, const Totals& totals, const Xbyak::RegExp& args)
      : g_(g), e_(e), totals_(totals), args_(args) {
    const int end = totals.first_register + totals.rows * totals.vectors;
    for (int i = 0; i < g.vector_count(); ++i) {
      if (totals.first_register < 0 || i < totals.first_register || i >= end) free_.push_back(i);
    }
    NIBBLE_CHECK(free_.size() > 2, "no vector registers left to finish with");
    columns_ = g.vec(free_.back());
    mask_ = g.vec(free_[free_.size() - 2]);
  }

  void emit() {
    Xbyak::Label tail, done;
    g_.mov(result_, field(&FinishArgs::result));
    if (e_.residual) g_.mov(residual_, field(&FinishArgs::residual));
    if (e_.bias) g_.mov(bias_, field(&FinishArgs::bias));
    if (e_.gate) g_.mov(gate_, field(&FinishArgs::gate_totals));
    if (e_.gate && e_.bias) g_.mov(gate_bias_, field(&FinishArgs::gate_bias));
    g_.cmp(g_.dword[args_ + offset_of(&FinishArgs::columns)], totals_.vectors * g_.vector_floats());
    g_.jne(tail, g_.T_NEAR);
    tile(false);
    g_.jmp(done, g_.T_NEAR);
    g_.L(tail);
    g_.vpbroadcastd(columns_, field(&FinishArgs::columns));
    tile(true);
    g_.L(done);
  }

 private:
  template <class Field>
  Xbyak::Address field(Field FinishArgs::*member) const { return arg(args_, member); }

  int row_bytes() const { return totals_.vectors * g_.vector_bytes(); }

  // Totals in registers are unrolled, a tile in memory is walked by a loop.
  void tile(bool masked) {
    const bool in_registers = totals_.first_register >= 0;
    EmitMath math(g_, std::span(free_).first(free_.size() - (masked ? 2 : 0)));
    Xbyak::Label loop;
    if (!in_registers) {
      g_.mov(rows_.cvt32(), totals_.rows);
      g_.L(loop);
    }
    for (int r = 0; r < (in_registers ? totals_.rows : 1); ++r) {
      row(math, r, masked);
      if (in_registers && r + 1 == totals_.rows) break;
      g_.add(result_, field(&FinishArgs::result_stride));
      if (e_.residual) g_.add(residual_, field(&FinishArgs::residual_stride));
      if (e_.gate) g_.add(gate_, row_bytes());
    }
    if (in_registers) return;
    g_.add(totals_.tile, row_bytes());
    g_.dec(rows_.cvt32());
    g_.jnz(loop, g_.T_NEAR);
  }

  void row(EmitMath& math, int r, bool masked) {
    if (masked && e_.narrow_residual()) copy_residual();
    for (int v = 0; v < totals_.vectors; ++v) {
      if (masked) make_mask(v);
      const size_t at = static_cast<size_t>(v * g_.vector_bytes());
      EmitValue x = total(math, r, v);
      if (e_.bias) add_floats(x, bias_ + at, masked);
      if (e_.gate) {
        EmitValue gate = math.fresh();
        g_.vmovups(gate.reg(), ptr[gate_ + at]);
        if (e_.bias) add_floats(gate, gate_bias_ + at, masked);
        gate = apply(gate);
        g_.vmulps(x.reg(), gate.reg(), x.reg());
      } else {
        x = apply(x);
      }
      if (e_.residual) add_residual(x, v, masked);
      store(result_ + at, x, masked);
    }
  }

  EmitValue total(EmitMath& math, int r, int v) {
    if (totals_.first_register >= 0) return math.take(totals_.first_register + r * totals_.vectors + v);
    EmitValue x = math.fresh();
    g_.vmovups(x.reg(), ptr[totals_.tile + static_cast<size_t>(v * g_.vector_bytes())]);
    return x;
  }

  EmitValue apply(const EmitValue& x) const {
    switch (e_.function) {
      case Function::silu: return emit_silu(x);
      case Function::gelu: return emit_gelu(x);
      case Function::gelu_tanh: return emit_gelu_tanh(x);
      case Function::relu: return emit_relu(x);
      default: return x;
    }
  }

  // Lanes of vector v that exist.
  void make_mask(int v) {
    std::array<uint8_t, 64> lanes;
    for (size_t i = 0; i < 16; ++i) {
      const auto column = std::bit_cast<std::array<uint8_t, 4>>(static_cast<int32_t>(i) + v * g_.vector_floats());
      for (size_t b = 0; b < 4; ++b) lanes[4 * i + b] = column[b];
    }
    if (g_.evex()) {
      g_.vpcmpgtd(g_.k7, columns_, g_.constant(lanes));
    } else {
      g_.vpcmpgtd(mask_, columns_, g_.constant(lanes));
    }
  }

  void load_floats(const Xbyak::Xmm& to, const Xbyak::RegExp& at) {
    if (g_.evex()) {
      g_.vmovups(to | g_.k7 | g_.T_z, ptr[at]);
    } else {
      g_.vmaskmovps(to, mask_, ptr[at]);
    }
  }

  void add_floats(EmitValue& x, const Xbyak::RegExp& at, bool masked) {
    if (!masked) {
      g_.vaddps(x.reg(), x.reg(), ptr[at]);
      return;
    }
    const EmitValue other = x.math().fresh();
    load_floats(other.reg(), at);
    g_.vaddps(x.reg(), x.reg(), other.reg());
  }

  void add_residual(EmitValue& x, int v, bool masked) {
    if (!e_.narrow_residual()) {
      add_floats(x, residual_ + static_cast<size_t>(v * g_.vector_bytes()), masked);
      return;
    }
    const Xbyak::RegExp at = (masked ? Xbyak::RegExp(g_.rsp) : Xbyak::RegExp(residual_)) +
                             static_cast<size_t>(v * g_.vector_bytes() / 2);
    const EmitValue other = x.math().fresh();
    if (e_.residual_type() == DType::f16) {
      g_.vcvtph2ps(other.reg(), ptr[at]);
    } else {
      g_.vpmovzxwd(other.reg(), ptr[at]);
      g_.vpslld(other.reg(), other.reg(), 16);
    }
    g_.vaddps(x.reg(), x.reg(), other.reg());
  }

  // The row's elements to the frame: there is no masked load of 16 bits in AVX2.
  void copy_residual() {
    Xbyak::Label next;
    g_.xor_(g_.r11d, g_.r11d);
    g_.L(next);
    g_.movzx(g_.r12d, g_.word[residual_ + g_.r11 * 2]);
    g_.mov(g_.word[g_.rsp + g_.r11 * 2], g_.r12w);
    g_.inc(g_.r11);
    g_.cmp(g_.r11, field(&FinishArgs::columns));
    g_.jl(next);
  }

  void store(const Xbyak::RegExp& at, const EmitValue& x, bool masked) {
    if (!masked) {
      g_.vmovups(ptr[at], x.reg());
    } else if (g_.evex()) {
      g_.vmovups(ptr[at] | g_.k7, x.reg());
    } else {
      g_.vmaskmovps(ptr[at], mask_, x.reg());
    }
  }

  Generator& g_;
  const Epilogue e_;
  const Totals totals_;
  const Xbyak::RegExp args_;
  const Xbyak::Reg64 result_ = g_.rax, residual_ = g_.rcx, bias_ = g_.rdx, gate_ = g_.rsi, gate_bias_ = g_.r9;
  const Xbyak::Reg64 rows_ = g_.r10;
  std::vector<int> free_;
  Xbyak::Xmm columns_, mask_;
};

}  // namespace

int finish_frame_bytes(const Epilogue& e, const Totals& totals) {
  return e.narrow_residual() ? (totals.vectors * 32 + 63) / 64 * 64 : 0;
}

void emit_finish(Generator& g, const Epilogue& e, const Totals& totals, const Xbyak::RegExp& args) {
  Finisher(g, e, totals, args).emit();
}

}  // namespace nibble::jit
