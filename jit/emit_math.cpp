// SPDX-License-Identifier: Apache-2.0
#include "jit/emit_math.h"

#include <bit>
#include <utility>

#include "tensor/check.h"

namespace nibble::jit {

EmitValue::EmitValue(EmitMath& math, int reg) : math_(&math), register_(reg) { ++math.uses_[static_cast<size_t>(reg)]; }
EmitValue::EmitValue(EmitMath& math, float constant) : math_(&math), value_(constant) {}
EmitValue::EmitValue(const EmitValue& other) : math_(other.math_), register_(other.register_), value_(other.value_) {
  if (register_ >= 0) ++math_->uses_[static_cast<size_t>(register_)];
}
EmitValue::~EmitValue() {
  if (register_ >= 0) --math_->uses_[static_cast<size_t>(register_)];
}
EmitValue& EmitValue::operator=(EmitValue other) {
  std::swap(math_, other.math_);
  std::swap(register_, other.register_);
  std::swap(value_, other.value_);
  return *this;
}
Xbyak::Xmm EmitValue::reg() const { return math_->g_.vec(register_); }

EmitMath::EmitMath(Generator& g, std::span<const int> free) : g_(g) {
  uses_.fill(-1);
  for (const int reg : free) uses_[static_cast<size_t>(reg)] = 0;
  for (size_t i = 0; i < registers_.size(); ++i) registers_[i] = g.vec(static_cast<int>(i));
}

EmitValue EmitMath::fresh() {
  for (int reg = 0; reg < g_.vector_count(); ++reg) {
    if (uses_[static_cast<size_t>(reg)] == 0) return {*this, reg};
  }
  fail("a function needs more vector registers than the kernel leaves");
}

EmitValue EmitMath::take(int reg) {
  uses_[static_cast<size_t>(reg)] = 0;
  return {*this, reg};
}

const Xbyak::Operand& EmitMath::operand(const EmitValue& x) {
  if (!x.constant()) return registers_[static_cast<size_t>(x.register_)];
  memory_ = g_.constant(x.value_);
  return memory_;
}

EmitValue EmitMath::in_register(const EmitValue& x) {
  if (!x.constant()) return x;
  EmitValue to = fresh();
  if (std::bit_cast<uint32_t>(x.value_) == 0) {
    g_.zero(to.reg());
  } else {
    g_.vmovups(to.reg(), g_.constant(x.value_));
  }
  return to;
}

EmitValue EmitMath::result(const EmitValue& a, const EmitValue& b) { return sole(a) ? a : sole(b) ? b : fresh(); }

EmitValue EmitMath::writable(const EmitValue& x) {
  if (x.constant()) return in_register(x);
  if (sole(x)) return x;
  EmitValue to = fresh();
  g_.vmovaps(to.reg(), x.reg());
  return to;
}

EmitWhere EmitMath::where() {
  if (!g_.evex()) return {fresh(), Xbyak::Opmask(0)};
  next_mask_ = next_mask_ % 6 + 1;
  return {EmitValue(*this, 0.0f), Xbyak::Opmask(next_mask_)};
}

namespace {

using V = EmitValue;
using Where = EmitWhere;
using Xbyak::Operand;
using Xbyak::Xmm;

constexpr uint32_t sign_bit = 0x80000000u;

// Arguments come by value: one that only the call holds gives its register to the result.

V like(const V& x, float c) { return {x.math(), c}; }

using Binary = void (*)(Generator& g, const Xmm& to, const Xmm& a, const Operand& b);

V binary(const V& a, const V& b, Binary emit) {
  EmitMath& math = a.math();
  const V left = math.in_register(a);
  V to = math.result(left, b);
  emit(math.generator(), to.reg(), left.reg(), math.operand(b));
  return to;
}
/// The same where a and b may change places.
V either(const V& a, const V& b, Binary emit) { return a.constant() ? binary(b, a, emit) : binary(a, b, emit); }

V add(V a, V b) {
  return either(a, b, [](Generator& g, const Xmm& to, const Xmm& x, const Operand& y) { g.vaddps(to, x, y); });
}
V sub(V a, V b) {
  return binary(a, b, [](Generator& g, const Xmm& to, const Xmm& x, const Operand& y) { g.vsubps(to, x, y); });
}
V mul(V a, V b) {
  return either(a, b, [](Generator& g, const Xmm& to, const Xmm& x, const Operand& y) { g.vmulps(to, x, y); });
}
V div(V a, V b) {
  return binary(a, b, [](Generator& g, const Xmm& to, const Xmm& x, const Operand& y) { g.vdivps(to, x, y); });
}
V min(V a, V b) {
  return binary(a, b, [](Generator& g, const Xmm& to, const Xmm& x, const Operand& y) { g.vminps(to, x, y); });
}
V max(V a, V b) {
  return binary(a, b, [](Generator& g, const Xmm& to, const Xmm& x, const Operand& y) { g.vmaxps(to, x, y); });
}

/// What 213 forms need: to = a or b, other = the other one; a constant goes to `to`.
struct Factors {
  V to, other;
};
Factors factors(const V& a, const V& b) {
  EmitMath& math = a.math();
  if (b.constant()) return {math.writable(b), math.in_register(a)};
  return {math.writable(a), b};
}
V fma(V a, V b, V c) {
  const Factors f = factors(a, b);
  a.math().generator().vfmadd213ps(f.to.reg(), f.other.reg(), a.math().operand(c));
  return f.to;
}
V fms(V a, V b, V c) {
  const Factors f = factors(a, b);
  a.math().generator().vfmsub213ps(f.to.reg(), f.other.reg(), a.math().operand(c));
  return f.to;
}

V round(V x) {
  Generator& g = x.math().generator();
  V to = x.math().result(x, x);
  if (g.evex()) {
    g.vrndscaleps(to.reg(), x.reg(), 8);
  } else {
    g.vroundps(to.reg(), x.reg(), 8);
  }
  return to;
}

V bitwise(const V& x, uint32_t value, void (Generator::*emit)(const Xmm&, const Xmm&, const Operand&)) {
  V to = x.math().result(x, x);
  Generator& g = x.math().generator();
  (g.*emit)(to.reg(), x.reg(), g.constant(value));
  return to;
}
V size(V x) { return bitwise(x, ~sign_bit, &Generator::and_vec); }
V opposite(V x) { return bitwise(x, sign_bit, &Generator::xor_vec); }
V signed_like(V a, V x) {
  V to = bitwise(x, sign_bit, &Generator::and_vec);
  a.math().generator().or_vec(to.reg(), to.reg(), a.reg());
  return to;
}

V power_of_two(V n) {
  Generator& g = n.math().generator();
  V to = n.math().result(n, n);
  g.vcvtps2dq(to.reg(), n.reg());
  g.vpaddd(to.reg(), to.reg(), g.constant(127u));
  g.vpslld(to.reg(), to.reg(), 23);
  return to;
}

Where less(V a, V b) {
  constexpr uint8_t less_ordered_quiet = 0x11;
  EmitMath& math = a.math();
  Where w = math.where();
  if (math.generator().evex()) {
    math.generator().vcmpps(w.mask, a.reg(), math.operand(b), less_ordered_quiet);
  } else {
    math.generator().vcmpps(w.lanes.reg(), a.reg(), math.operand(b), less_ordered_quiet);
  }
  return w;
}
V keep(const Where& w, V x) {
  Generator& g = x.math().generator();
  V to = x.math().result(x, x);
  if (g.evex()) {
    g.vmovaps(to.reg() | w.mask | Xbyak::util::T_z, x.reg());
  } else {
    g.vpand(to.reg(), w.lanes.reg(), x.reg());
  }
  return to;
}
V choose(const Where& w, V x, V y) {
  Generator& g = x.math().generator();
  V to = x.math().result(x, y);
  if (g.evex()) {
    g.vblendmps(to.reg() | w.mask, y.reg(), x.reg());
  } else {
    g.vblendvps(to.reg(), y.reg(), x.reg(), w.lanes.reg());
  }
  return to;
}

#include "jit/functions.inc"

}  // namespace

EmitValue emit_silu(EmitValue x) { return silu(std::move(x)); }
EmitValue emit_gelu(EmitValue x) { return gelu(std::move(x)); }
EmitValue emit_gelu_tanh(EmitValue x) { return gelu_tanh(std::move(x)); }
EmitValue emit_relu(EmitValue x) { return relu(std::move(x)); }

}  // namespace nibble::jit
