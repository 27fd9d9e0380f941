// SPDX-License-Identifier: Apache-2.0
// Operands of one vector instruction, and handlers made from a function of one element.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <unordered_map>

#include "tests/support/emulator_state.h"

namespace nibble::emulator {

class Machine {
 public:
  Machine(State& state, const Decoded& decoded) : s(state), d(decoded), next_(s.rip + d.in.length) {
    for (int i = 0; i < d.in.operand_count_visible; ++i)
      if (d.op[i].encoding != ZYDIS_OPERAND_ENCODING_MASK) ops_[count++] = &d.op[i];
    bytes = std::max(d.in.avx.vector_length / 8, 16);
    const ZydisRegister m = d.in.avx.mask.reg;
    masked = m > ZYDIS_REGISTER_K0 && m <= ZYDIS_REGISTER_K7;
    mask = masked ? s.k[m - ZYDIS_REGISTER_K0] : ~0ull;
    zeroing = d.in.avx.mask.mode == ZYDIS_MASK_MODE_ZEROING;
  }

  const ZydisDecodedOperand& op(int i) const { return *ops_[i]; }
  bool is_memory(int i) const { return op(i).type == ZYDIS_OPERAND_TYPE_MEMORY; }
  bool is_vector(int i) const {
    return op(i).type == ZYDIS_OPERAND_TYPE_REGISTER && vector_index(op(i).reg.value) >= 0;
  }
  int imm(int i) const { return static_cast<int>(op(i).imm.value.u & 0xff); }
  uint64_t scalar(int i) const { return s.gpr[gpr_index(op(i).reg.value)]; }

  /// Source i as a vector; memory is read only where it is needed (elements of `element` bytes under the mask).
  Vec in(int i, int element = 0) const {
    Vec v;
    const ZydisDecodedOperand& o = op(i);
    if (o.type == ZYDIS_OPERAND_TYPE_REGISTER) {
      const int r = vector_index(o.reg.value);
      if (r >= 0) v = s.v[r];
      else v.set<uint64_t>(0, is_mask_register(o.reg.value) ? s.k[o.reg.value - ZYDIS_REGISTER_K0] : scalar(i));
      return v;
    }
    const auto* p = reinterpret_cast<const uint8_t*>(s.address(o, next_));
    const ZydisBroadcastMode mode = d.in.avx.broadcast.mode;
    if (mode != ZYDIS_BROADCAST_MODE_INVALID && !d.in.avx.broadcast.is_static) {
      const int e = o.element_size / 8;
      for (int at = 0; at < bytes; at += e) std::memcpy(v.b + at, p, static_cast<size_t>(e));
      return v;
    }
    const int size = std::max<int>(o.size / 8, 1);
    if (!masked || element == 0) {
      std::memcpy(v.b, p, static_cast<size_t>(std::min(size, 64)));
      return v;
    }
    for (int e = 0; e * element < size; ++e)
      if ((mask >> e) & 1) std::memcpy(v.b + e * element, p + e * element, static_cast<size_t>(element));
    return v;
  }

  /// Writes `size` bytes of v (default: the vector length) to operand 0 under the mask; the rest of a register is
  /// zeroed.
  void out(const Vec& v, int element, int size = 0) {
    if (size == 0) size = bytes;
    const ZydisDecodedOperand& o = op(0);
    if (o.type == ZYDIS_OPERAND_TYPE_MEMORY) {
      auto* p = reinterpret_cast<uint8_t*>(s.address(o, next_));
      for (int e = 0; e * element < size; ++e)
        if ((mask >> e) & 1) std::memcpy(p + e * element, v.b + e * element, static_cast<size_t>(element));
      return;
    }
    Vec result;
    const Vec& old = s.v[vector_index(o.reg.value)];
    for (int e = 0; e * element < size; ++e) {
      const bool on = (mask >> e) & 1;
      if (on) std::memcpy(result.b + e * element, v.b + e * element, static_cast<size_t>(element));
      else if (!zeroing) std::memcpy(result.b + e * element, old.b + e * element, static_cast<size_t>(element));
    }
    s.v[vector_index(o.reg.value)] = result;
  }
  void out_mask(uint64_t v) { s.k[op(0).reg.value - ZYDIS_REGISTER_K0] = v; }
  void out_gpr(uint64_t v) { s.gpr[gpr_index(op(0).reg.value)] = v; }

  State& s;
  const Decoded& d;
  int count = 0, bytes = 16;
  bool masked = false, zeroing = false;
  uint64_t mask = ~0ull;

 private:
  uint64_t next_;
  const ZydisDecodedOperand* ops_[ZYDIS_MAX_OPERAND_COUNT] = {};
};

using Handler = std::function<void(Machine&)>;

template <class T, class F>
Handler binary(F f) {
  return [f](Machine& m) {
    const Vec a = m.in(1), b = m.in(2);
    Vec v;
    for (int i = 0; i < m.bytes / static_cast<int>(sizeof(T)); ++i)
      v.set<T>(i, static_cast<T>(f(a.get<T>(i), b.get<T>(i))));
    m.out(v, sizeof(T));
  };
}
template <class T, class F>
Handler unary(F f) {
  return [f](Machine& m) {
    const Vec a = m.in(1, sizeof(T));
    Vec v;
    for (int i = 0; i < m.bytes / static_cast<int>(sizeof(T)); ++i) v.set<T>(i, static_cast<T>(f(a.get<T>(i))));
    m.out(v, sizeof(T));
  };
}
/// Converts element i of In to element i of Out; as many as fit the wider of both.
template <class In, class Out, class F>
Handler convert(F f) {
  return [f](Machine& m) {
    const int size = m.bytes * static_cast<int>(sizeof(Out)) / static_cast<int>(std::max(sizeof(In), sizeof(Out)));
    const Vec a = m.in(1);
    Vec v;
    for (int i = 0; i < size / static_cast<int>(sizeof(Out)); ++i) v.set<Out>(i, static_cast<Out>(f(a.get<In>(i))));
    m.out(v, sizeof(Out), size);
  };
}
template <class T>
Handler move() {
  return [](Machine& m) {
    const Vec v = m.in(1, sizeof(T));
    m.out(v, sizeof(T));
  };
}
template <class T>
Handler broadcast() {
  return [](Machine& m) {
    const Vec a = m.in(1);
    Vec v;
    for (int i = 0; i < m.bytes / static_cast<int>(sizeof(T)); ++i) v.set<T>(i, a.get<T>(0));
    m.out(v, sizeof(T));
  };
}
template <int Chunk>
Handler broadcast_chunk() {
  return [](Machine& m) {
    const Vec a = m.in(1);
    Vec v;
    for (int at = 0; at < m.bytes; at += Chunk) std::memcpy(v.b + at, a.b, Chunk);
    m.out(v, 4);
  };
}
template <int Chunk>
Handler extract_chunk() {
  return [](Machine& m) {
    const Vec a = m.in(1);
    Vec v;
    std::memcpy(v.b, a.b + Chunk * m.imm(2), Chunk);
    m.out(v, 4, Chunk);
  };
}
template <int Chunk>
Handler insert_chunk() {
  return [](Machine& m) {
    Vec v = m.in(1);
    const Vec a = m.in(2);
    std::memcpy(v.b + Chunk * (m.imm(3) % (m.bytes / Chunk)), a.b, Chunk);
    m.out(v, 4);
  };
}
/// Shift counts come from an immediate or from the low quadword of an xmm register.
template <class T, class F>
Handler shift(F f) {
  return [f](Machine& m) {
    const Vec a = m.in(1);
    const uint64_t count = m.op(2).type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? static_cast<uint64_t>(m.imm(2))
                                                                       : m.in(2).get<uint64_t>(0);
    Vec v;
    for (int i = 0; i < m.bytes / static_cast<int>(sizeof(T)); ++i)
      v.set<T>(i, static_cast<T>(f(a.get<T>(i), static_cast<int>(std::min<uint64_t>(count, 255)))));
    m.out(v, sizeof(T));
  };
}
template <class T>
Handler shuffle_bytes_in_lanes(std::function<int(int lane_element, int imm)> from) {
  return [from](Machine& m) {
    const Vec a = m.in(1);
    const int imm = m.imm(2), per_lane = 16 / static_cast<int>(sizeof(T));
    Vec v;
    for (int i = 0; i < m.bytes / static_cast<int>(sizeof(T)); ++i)
      v.set<T>(i, a.get<T>(i / per_lane * per_lane + from(i % per_lane, imm)));
    m.out(v, sizeof(T));
  };
}
template <class T>
Handler unpack(bool high) {
  return [high](Machine& m) {
    const Vec a = m.in(1), b = m.in(2);
    const int per_lane = 16 / static_cast<int>(sizeof(T));
    Vec v;
    for (int lane = 0; lane < m.bytes / 16; ++lane)
      for (int i = 0; i < per_lane; ++i)
        v.set<T>(lane * per_lane + i,
                 (i % 2 ? b : a).get<T>(lane * per_lane + i / 2 + (high ? per_lane / 2 : 0)));
    m.out(v, sizeof(T));
  };
}
template <class From, class To>
Handler pack_saturated() {
  return [](Machine& m) {
    const Vec a = m.in(1), b = m.in(2);
    const int n = 16 / static_cast<int>(sizeof(From));
    Vec v;
    for (int lane = 0; lane < m.bytes / 16; ++lane)
      for (int i = 0; i < 2 * n; ++i) {
        const From x = (i < n ? a : b).get<From>(lane * n + i % n);
        v.set<To>(lane * 2 * n + i, static_cast<To>(std::clamp<From>(x, std::numeric_limits<To>::min(),
                                                                    std::numeric_limits<To>::max())));
      }
    m.out(v, sizeof(To));
  };
}
template <class T>
Handler permute() {
  return [](Machine& m) {  // op1: indices, op2: data
    const Vec index = m.in(1), a = m.in(2);
    const int n = m.bytes / static_cast<int>(sizeof(T));
    Vec v;
    for (int i = 0; i < n; ++i) {
      uint64_t at = 0;
      std::memcpy(&at, index.b + i * static_cast<int>(sizeof(T)), sizeof(T));
      v.set<T>(i, a.get<T>(static_cast<int>(at % static_cast<uint64_t>(n))));
    }
    m.out(v, sizeof(T));
  };
}
template <class T>
Handler compare(std::function<bool(T, T, int)> f, int fixed_predicate = -1) {
  return [f, fixed_predicate](Machine& m) {
    const Vec a = m.in(1), b = m.in(2);
    const int predicate = fixed_predicate >= 0 ? fixed_predicate : m.imm(3);
    Vec v;
    uint64_t bits = 0;
    for (int i = 0; i < m.bytes / static_cast<int>(sizeof(T)); ++i) {
      const bool on = f(a.get<T>(i), b.get<T>(i), predicate);
      if (on) std::memset(v.b + i * static_cast<int>(sizeof(T)), 0xff, sizeof(T));
      bits |= static_cast<uint64_t>(on) << i;
    }
    if (is_mask_register(m.op(0).reg.value)) m.out_mask(bits & m.mask);
    else m.out(v, sizeof(T));
  };
}

inline bool compare_int(int64_t a, int64_t b, int predicate) {
  switch (predicate & 7) {
    case 0: return a == b;
    case 1: return a < b;
    case 2: return a <= b;
    case 3: return false;
    case 4: return a != b;
    case 5: return a >= b;
    case 6: return a > b;
    default: return true;
  }
}
inline bool compare_float(float a, float b, int predicate) {
  const bool unordered = std::isnan(a) || std::isnan(b);
  switch (predicate & 15) {
    case 0: return a == b;
    case 1: return a < b;
    case 2: return a <= b;
    case 3: return unordered;
    case 4: return !(a == b);
    case 5: return !(a < b);
    case 6: return !(a <= b);
    case 7: return !unordered;
    case 8: return unordered || a == b;
    case 9: return !(a >= b);
    case 10: return !(a > b);
    case 11: return false;
    case 12: return !unordered && a != b;
    case 13: return a >= b;
    case 14: return a > b;
    default: return true;
  }
}

/// order: which operand multiplies which, as in the mnemonic (132, 213, 231).
template <bool NegateProduct, bool NegateAddend, int Order, bool ScalarOnly>
void fma(Machine& m) {
  const Vec a = m.in(0), b = m.in(1), c = m.in(2);
  Vec v = a;
  const int n = ScalarOnly ? 1 : m.bytes / 4;
  for (int i = 0; i < n; ++i) {
    const float x = a.get<float>(i), y = b.get<float>(i), z = c.get<float>(i);
    float p = Order == 132 ? x : y, q = Order == 213 ? x : z;
    float r = Order == 132 ? y : Order == 213 ? z : x;
    if (NegateProduct) p = -p;
    if (NegateAddend) r = -r;
    v.set<float>(i, std::fma(p, q, r));
  }
  if (ScalarOnly) m.out(v, 4, 16);
  else m.out(v, 4);
}

template <bool Saturate>
void dpbusd(Machine& m) {
  const Vec acc = m.in(0), u = m.in(1), s = m.in(2);
  Vec v;
  for (int i = 0; i < m.bytes / 4; ++i) {
    int64_t sum = acc.get<int32_t>(i);
    for (int j = 0; j < 4; ++j) sum += u.get<uint8_t>(4 * i + j) * s.get<int8_t>(4 * i + j);
    if (Saturate) sum = std::clamp<int64_t>(sum, INT32_MIN, INT32_MAX);
    v.set<int32_t>(i, static_cast<int32_t>(sum));
  }
  m.out(v, 4);
}

inline float round_by(float x, int mode) {
  switch (mode & 7) {
    case 1: return std::floor(x);
    case 2: return std::ceil(x);
    case 3: return std::trunc(x);
    default: return std::nearbyint(x);
  }
}
inline int32_t to_int(float rounded) {
  if (!(rounded >= -2147483648.0f && rounded < 2147483648.0f)) return INT32_MIN;
  return static_cast<int32_t>(rounded);
}

using Table = std::unordered_map<int, Handler>;
void add_shuffles(Table& t);
void add_masks(Table& t);

}  // namespace nibble::emulator
