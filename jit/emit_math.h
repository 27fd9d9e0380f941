// SPDX-License-Identifier: Apache-2.0
// jit/functions.inc as machine code: values are vector registers that free themselves. The instructions are those that
// jit/vector_math.h runs, lane by lane, so the results are the same bits.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "jit/generator.h"

namespace nibble::jit {

class EmitMath;

/// A register of an EmitMath, shared by its copies and free again after the last one; or a constant without a register.
class EmitValue {
 public:
  EmitValue(EmitMath& math, int reg);          ///< takes one reference
  EmitValue(EmitMath& math, float constant);
  ~EmitValue();
  EmitValue(const EmitValue& other);
  EmitValue& operator=(EmitValue other);

  bool constant() const { return register_ < 0; }
  Xbyak::Xmm reg() const;                      ///< not of a constant
  EmitMath& math() const { return *math_; }

 private:
  friend class EmitMath;
  EmitMath* math_;
  int register_ = -1;
  float value_ = 0;
};

/// A comparison: a vector register of ones and zeros or, for EVEX, a mask register.
struct EmitWhere {
  EmitValue lanes;
  Xbyak::Opmask mask;
};

class EmitMath {
 public:
  /// May use the vector registers `free` and, for EVEX, k1 to k6.
  EmitMath(Generator& g, std::span<const int> free);
  EmitMath(const EmitMath&) = delete;
  EmitMath& operator=(const EmitMath&) = delete;

  Generator& generator() { return g_; }
  EmitValue fresh();
  /// A register outside `free` that is free once the value is gone.
  EmitValue take(int reg);
  /// What an instruction reads last: the register, or the constant in memory.
  const Xbyak::Operand& operand(const EmitValue& x);
  EmitValue in_register(const EmitValue& x);
  /// Where a result of a and b may go: the register of one that nobody else holds, or a fresh one.
  EmitValue result(const EmitValue& a, const EmitValue& b);
  /// A register that may be overwritten with x in it: x's own when nobody else holds it.
  EmitValue writable(const EmitValue& x);
  EmitWhere where();

 private:
  friend class EmitValue;
  bool sole(const EmitValue& x) const { return !x.constant() && uses_[static_cast<size_t>(x.register_)] == 1; }
  Generator& g_;
  std::array<int, 32> uses_{};     ///< references; -1: not ours
  int next_mask_ = 0;
  std::array<Xbyak::Xmm, 32> registers_;
  Xbyak::Address memory_{0};
};

/// The same functions for a value at run time of the emitter.
EmitValue emit_silu(EmitValue x);
EmitValue emit_gelu(EmitValue x);
EmitValue emit_gelu_tanh(EmitValue x);
EmitValue emit_relu(EmitValue x);

}  // namespace nibble::jit
