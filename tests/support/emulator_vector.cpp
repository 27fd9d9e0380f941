// SPDX-License-Identifier: Apache-2.0
// Vector and mask instructions of the emulator: operands in, a loop over elements, masked result out.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <unordered_map>

#include "tensor/dtype.h"
#include "tests/support/emulator_state.h"

namespace nibble::emulator {

namespace {

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
  bool is_vector(int i) const { return op(i).type == ZYDIS_OPERAND_TYPE_REGISTER && vector_index(op(i).reg.value) >= 0; }
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

  /// Writes `size` bytes of v (default: the vector length) to operand 0 under the mask; the rest of a register is zeroed.
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

bool compare_int(int64_t a, int64_t b, int predicate) {
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
bool compare_float(float a, float b, int predicate) {
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

float round_by(float x, int mode) {
  switch (mode & 7) {
    case 1: return std::floor(x);
    case 2: return std::ceil(x);
    case 3: return std::trunc(x);
    default: return std::nearbyint(x);
  }
}
int32_t to_int(float rounded) {
  if (!(rounded >= -2147483648.0f && rounded < 2147483648.0f)) return INT32_MIN;
  return static_cast<int32_t>(rounded);
}

using Table = std::unordered_map<int, Handler>;
void add_moves(Table& t);
void add_integers(Table& t);
void add_floats(Table& t);
void add_shuffles(Table& t);
void add_masks(Table& t);

const Table& handlers() {
  static const Table table = [] {
    Table t;
    add_moves(t), add_integers(t), add_floats(t), add_shuffles(t), add_masks(t);
    return t;
  }();
  return table;
}

#define ON(mnemonic) t[ZYDIS_MNEMONIC_##mnemonic]

void add_moves(Table& t) {
  for (int m : {ZYDIS_MNEMONIC_VMOVUPS, ZYDIS_MNEMONIC_VMOVAPS, ZYDIS_MNEMONIC_VMOVDQU, ZYDIS_MNEMONIC_VMOVDQA,
                ZYDIS_MNEMONIC_VMOVDQU32, ZYDIS_MNEMONIC_VMOVDQA32, ZYDIS_MNEMONIC_VMOVNTPS, ZYDIS_MNEMONIC_VMOVNTDQ,
                ZYDIS_MNEMONIC_VLDDQU})
    t[m] = move<uint32_t>();
  for (int m : {ZYDIS_MNEMONIC_VMOVUPD, ZYDIS_MNEMONIC_VMOVAPD, ZYDIS_MNEMONIC_VMOVDQU64, ZYDIS_MNEMONIC_VMOVDQA64})
    t[m] = move<uint64_t>();
  ON(VMOVDQU8) = move<uint8_t>();
  ON(VMOVDQU16) = move<uint16_t>();
  const auto low = [](int element) {
    return [element](Machine& m) {
      const Vec a = m.in(m.count - 1);
      Vec v = m.count == 3 ? m.in(1) : Vec();
      std::memcpy(v.b, a.b, static_cast<size_t>(element));
      if (m.op(0).type == ZYDIS_OPERAND_TYPE_REGISTER && vector_index(m.op(0).reg.value) < 0)
        m.out_gpr(element == 4 ? v.get<uint32_t>(0) : v.get<uint64_t>(0));
      else m.out(v, element, m.is_memory(0) ? element : 16);
    };
  };
  ON(VMOVD) = low(4);
  ON(VMOVSS) = low(4);
  ON(VMOVQ) = low(8);
  ON(VMOVSD) = low(8);
  ON(VBROADCASTSS) = broadcast<uint32_t>();
  ON(VBROADCASTSD) = broadcast<uint64_t>();
  ON(VPBROADCASTB) = broadcast<uint8_t>();
  ON(VPBROADCASTW) = broadcast<uint16_t>();
  ON(VPBROADCASTD) = broadcast<uint32_t>();
  ON(VPBROADCASTQ) = broadcast<uint64_t>();
  for (int m : {ZYDIS_MNEMONIC_VBROADCASTI128, ZYDIS_MNEMONIC_VBROADCASTF128, ZYDIS_MNEMONIC_VBROADCASTI32X4,
                ZYDIS_MNEMONIC_VBROADCASTF32X4, ZYDIS_MNEMONIC_VBROADCASTI64X2, ZYDIS_MNEMONIC_VBROADCASTF64X2})
    t[m] = broadcast_chunk<16>();
  for (int m : {ZYDIS_MNEMONIC_VBROADCASTI64X4, ZYDIS_MNEMONIC_VBROADCASTF64X4, ZYDIS_MNEMONIC_VBROADCASTI32X8,
                ZYDIS_MNEMONIC_VBROADCASTF32X8})
    t[m] = broadcast_chunk<32>();
  for (int m : {ZYDIS_MNEMONIC_VEXTRACTI128, ZYDIS_MNEMONIC_VEXTRACTF128, ZYDIS_MNEMONIC_VEXTRACTI32X4,
                ZYDIS_MNEMONIC_VEXTRACTF32X4, ZYDIS_MNEMONIC_VEXTRACTI64X2, ZYDIS_MNEMONIC_VEXTRACTF64X2})
    t[m] = extract_chunk<16>();
  for (int m : {ZYDIS_MNEMONIC_VEXTRACTI64X4, ZYDIS_MNEMONIC_VEXTRACTF64X4, ZYDIS_MNEMONIC_VEXTRACTI32X8,
                ZYDIS_MNEMONIC_VEXTRACTF32X8})
    t[m] = extract_chunk<32>();
  for (int m : {ZYDIS_MNEMONIC_VINSERTI128, ZYDIS_MNEMONIC_VINSERTF128, ZYDIS_MNEMONIC_VINSERTI32X4,
                ZYDIS_MNEMONIC_VINSERTF32X4})
    t[m] = insert_chunk<16>();
  for (int m : {ZYDIS_MNEMONIC_VINSERTI64X4, ZYDIS_MNEMONIC_VINSERTF64X4, ZYDIS_MNEMONIC_VINSERTI32X8})
    t[m] = insert_chunk<32>();
  ON(VMASKMOVPS) = ON(VPMASKMOVD) = [](Machine& m) {
    const Vec select = m.in(1);
    const bool store = m.is_memory(0);
    uint64_t on = 0;
    for (int i = 0; i < m.bytes / 4; ++i) on |= static_cast<uint64_t>(select.get<int32_t>(i) < 0) << i;
    m.masked = true, m.zeroing = true, m.mask = on;
    const Vec v = store ? m.in(2) : m.in(2, 4);
    m.out(v, 4);
  };
  ON(VZEROUPPER) = [](Machine& m) {
    for (int i = 0; i < 16; ++i) std::memset(m.s.v[i].b + 16, 0, 48);
  };
}

void add_integers(Table& t) {
  const auto plus = [](auto a, auto b) { return a + b; };
  const auto minus = [](auto a, auto b) { return a - b; };
  ON(VPADDB) = binary<uint8_t>(plus);
  ON(VPADDW) = binary<uint16_t>(plus);
  ON(VPADDD) = binary<uint32_t>(plus);
  ON(VPADDQ) = binary<uint64_t>(plus);
  ON(VPSUBB) = binary<uint8_t>(minus);
  ON(VPSUBW) = binary<uint16_t>(minus);
  ON(VPSUBD) = binary<uint32_t>(minus);
  ON(VPSUBQ) = binary<uint64_t>(minus);
  ON(VPMULLD) = binary<uint32_t>([](uint32_t a, uint32_t b) { return a * b; });
  ON(VPMULLW) = binary<uint16_t>([](unsigned a, unsigned b) { return a * b; });
  const Handler and_ = binary<uint32_t>([](uint32_t a, uint32_t b) { return a & b; });
  const Handler or_ = binary<uint32_t>([](uint32_t a, uint32_t b) { return a | b; });
  const Handler xor_ = binary<uint32_t>([](uint32_t a, uint32_t b) { return a ^ b; });
  const Handler andn = binary<uint32_t>([](uint32_t a, uint32_t b) { return ~a & b; });
  ON(VPAND) = ON(VPANDD) = ON(VPANDQ) = ON(VANDPS) = and_;
  ON(VPOR) = ON(VPORD) = ON(VPORQ) = ON(VORPS) = or_;
  ON(VPXOR) = ON(VPXORD) = ON(VPXORQ) = ON(VXORPS) = xor_;
  ON(VPANDN) = ON(VPANDND) = ON(VPANDNQ) = ON(VANDNPS) = andn;
  ON(VPSLLW) = shift<uint16_t>([](unsigned a, int n) { return n > 15 ? 0u : a << n; });
  ON(VPSRLW) = shift<uint16_t>([](unsigned a, int n) { return n > 15 ? 0u : a >> n; });
  ON(VPSRAW) = shift<int16_t>([](int a, int n) { return a >> std::min(n, 15); });
  ON(VPSLLD) = shift<uint32_t>([](uint32_t a, int n) { return n > 31 ? 0u : a << n; });
  ON(VPSRLD) = shift<uint32_t>([](uint32_t a, int n) { return n > 31 ? 0u : a >> n; });
  ON(VPSRAD) = shift<int32_t>([](int32_t a, int n) { return a >> std::min(n, 31); });
  ON(VPSLLQ) = shift<uint64_t>([](uint64_t a, int n) { return n > 63 ? 0ull : a << n; });
  ON(VPSRLQ) = shift<uint64_t>([](uint64_t a, int n) { return n > 63 ? 0ull : a >> n; });
  ON(VPSLLVD) = binary<uint32_t>([](uint32_t a, uint32_t n) { return n > 31 ? 0u : a << n; });
  ON(VPSRLVD) = binary<uint32_t>([](uint32_t a, uint32_t n) { return n > 31 ? 0u : a >> n; });
  ON(VPSRAVD) = binary<int32_t>([](int32_t a, int32_t n) { return a >> std::min<uint32_t>(static_cast<uint32_t>(n), 31); });
  ON(VPABSB) = unary<int8_t>([](int a) { return a < 0 ? -a : a; });
  ON(VPABSW) = unary<int16_t>([](int a) { return a < 0 ? -a : a; });
  ON(VPABSD) = unary<uint32_t>([](uint32_t a) { return static_cast<int32_t>(a) < 0 ? 0u - a : a; });
  ON(VPSIGNB) = binary<int8_t>([](int a, int b) { return b < 0 ? -a : b == 0 ? 0 : a; });
  ON(VPMAXSD) = binary<int32_t>([](int32_t a, int32_t b) { return std::max(a, b); });
  ON(VPMINSD) = binary<int32_t>([](int32_t a, int32_t b) { return std::min(a, b); });
  ON(VPMAXSB) = binary<int8_t>([](int8_t a, int8_t b) { return std::max(a, b); });
  ON(VPMINSB) = binary<int8_t>([](int8_t a, int8_t b) { return std::min(a, b); });
  ON(VPMINUB) = binary<uint8_t>([](uint8_t a, uint8_t b) { return std::min(a, b); });
  ON(VPMAXUB) = binary<uint8_t>([](uint8_t a, uint8_t b) { return std::max(a, b); });
  ON(VPMADDUBSW) = [](Machine& m) {
    const Vec u = m.in(1), s = m.in(2);
    Vec v;
    for (int i = 0; i < m.bytes / 2; ++i) {
      const int sum = u.get<uint8_t>(2 * i) * s.get<int8_t>(2 * i) + u.get<uint8_t>(2 * i + 1) * s.get<int8_t>(2 * i + 1);
      v.set<int16_t>(i, static_cast<int16_t>(std::clamp(sum, -32768, 32767)));
    }
    m.out(v, 2);
  };
  ON(VPMADDWD) = [](Machine& m) {
    const Vec a = m.in(1), b = m.in(2);
    Vec v;
    for (int i = 0; i < m.bytes / 4; ++i) {
      int64_t sum = 0;
      for (int j = 0; j < 2; ++j) sum += int64_t{a.get<int16_t>(2 * i + j)} * b.get<int16_t>(2 * i + j);
      v.set<uint32_t>(i, static_cast<uint32_t>(sum));
    }
    m.out(v, 4);
  };
  ON(VPDPBUSD) = dpbusd<false>;
  ON(VPDPBUSDS) = dpbusd<true>;
  ON(VPSADBW) = [](Machine& m) {
    const Vec a = m.in(1), b = m.in(2);
    Vec v;
    for (int i = 0; i < m.bytes; ++i) {
      const int difference = a.b[i] > b.b[i] ? a.b[i] - b.b[i] : b.b[i] - a.b[i];
      v.set<uint64_t>(i / 8, v.get<uint64_t>(i / 8) + static_cast<uint64_t>(difference));
    }
    m.out(v, 8);
  };
  ON(VPTERNLOGD) = ON(VPTERNLOGQ) = [](Machine& m) {
    const Vec a = m.in(0), b = m.in(1), c = m.in(2);
    const int table = m.imm(3);
    Vec v;
    for (int i = 0; i < m.bytes; ++i)
      for (int bit = 0; bit < 8; ++bit) {
        const int index = ((a.b[i] >> bit) & 1) << 2 | ((b.b[i] >> bit) & 1) << 1 | ((c.b[i] >> bit) & 1);
        v.b[i] = static_cast<uint8_t>(v.b[i] | ((table >> index) & 1) << bit);
      }
    m.out(v, 4);
  };
  const auto same = [](auto a) { return a; };
  ON(VPMOVZXBW) = convert<uint8_t, uint16_t>(same);
  ON(VPMOVZXBD) = convert<uint8_t, uint32_t>(same);
  ON(VPMOVZXWD) = convert<uint16_t, uint32_t>(same);
  ON(VPMOVZXBQ) = convert<uint8_t, uint64_t>(same);
  ON(VPMOVZXDQ) = convert<uint32_t, uint64_t>(same);
  ON(VPMOVSXBW) = convert<int8_t, int16_t>(same);
  ON(VPMOVSXBD) = convert<int8_t, int32_t>(same);
  ON(VPMOVSXWD) = convert<int16_t, int32_t>(same);
  ON(VPMOVSXDQ) = convert<int32_t, int64_t>(same);
  ON(VPMOVDB) = convert<uint32_t, uint8_t>(same);
  ON(VPMOVDW) = convert<uint32_t, uint16_t>(same);
  ON(VPMOVWB) = convert<uint16_t, uint8_t>(same);
  ON(VPMOVSDB) = convert<int32_t, int8_t>([](int32_t a) { return std::clamp(a, -128, 127); });
  ON(VPMOVSDW) = convert<int32_t, int16_t>([](int32_t a) { return std::clamp(a, -32768, 32767); });
}

void add_floats(Table& t) {
  ON(VADDPS) = binary<float>([](float a, float b) { return a + b; });
  ON(VSUBPS) = binary<float>([](float a, float b) { return a - b; });
  ON(VMULPS) = binary<float>([](float a, float b) { return a * b; });
  ON(VDIVPS) = binary<float>([](float a, float b) { return a / b; });
  ON(VMAXPS) = binary<float>([](float a, float b) { return a > b ? a : b; });  // b when unordered, as the CPU
  ON(VMINPS) = binary<float>([](float a, float b) { return a < b ? a : b; });
  ON(VSQRTPS) = unary<float>([](float a) { return std::sqrt(a); });
  const auto scalar = [](auto f) {
    return [f](Machine& m) {
      Vec v = m.in(1);
      v.set<float>(0, f(v.get<float>(0), m.in(2).get<float>(0)));
      m.out(v, 4, 16);
    };
  };
  ON(VADDSS) = scalar([](float a, float b) { return a + b; });
  ON(VSUBSS) = scalar([](float a, float b) { return a - b; });
  ON(VMULSS) = scalar([](float a, float b) { return a * b; });
  ON(VDIVSS) = scalar([](float a, float b) { return a / b; });
  ON(VMAXSS) = scalar([](float a, float b) { return a > b ? a : b; });
  ON(VMINSS) = scalar([](float a, float b) { return a < b ? a : b; });
#define FMA_FAMILY(name, np, na)                          \
  ON(name##132PS) = fma<np, na, 132, false>;              \
  ON(name##213PS) = fma<np, na, 213, false>;              \
  ON(name##231PS) = fma<np, na, 231, false>;              \
  ON(name##132SS) = fma<np, na, 132, true>;               \
  ON(name##213SS) = fma<np, na, 213, true>;               \
  ON(name##231SS) = fma<np, na, 231, true>
  FMA_FAMILY(VFMADD, false, false);
  FMA_FAMILY(VFMSUB, false, true);
  FMA_FAMILY(VFNMADD, true, false);
  FMA_FAMILY(VFNMSUB, true, true);
#undef FMA_FAMILY
  ON(VCVTDQ2PS) = convert<int32_t, float>([](int32_t a) { return a; });
  ON(VCVTPS2DQ) = convert<float, int32_t>([](float a) { return to_int(std::nearbyint(a)); });
  ON(VCVTTPS2DQ) = convert<float, int32_t>([](float a) { return to_int(std::trunc(a)); });
  ON(VCVTPH2PS) = convert<uint16_t, float>([](uint16_t a) { return f16_to_f32(a); });
  ON(VCVTPS2PH) = convert<float, uint16_t>([](float a) { return f32_to_f16(a); });  // round to nearest even only
  ON(VROUNDPS) = ON(VRNDSCALEPS) = [](Machine& m) {
    const Vec a = m.in(1);
    Vec v;
    for (int i = 0; i < m.bytes / 4; ++i) v.set<float>(i, round_by(a.get<float>(i), m.imm(2) & 3));
    m.out(v, 4);
  };
  ON(VSCALEFPS) = binary<float>([](float a, float b) { return std::ldexp(a, static_cast<int>(std::floor(b))); });
  ON(VCMPPS) = compare<float>(compare_float);
  ON(VBLENDVPS) = [](Machine& m) {
    const Vec a = m.in(1), b = m.in(2), select = m.in(3);
    Vec v;
    for (int i = 0; i < m.bytes / 4; ++i)
      v.set<uint32_t>(i, (select.get<int32_t>(i) < 0 ? b : a).get<uint32_t>(i));
    m.out(v, 4);
  };
  ON(VPBLENDVB) = [](Machine& m) {
    const Vec a = m.in(1), b = m.in(2), select = m.in(3);
    Vec v;
    for (int i = 0; i < m.bytes; ++i) v.b[i] = (select.b[i] & 0x80 ? b : a).b[i];
    m.out(v, 1);
  };
  ON(VBLENDMPS) = ON(VPBLENDMD) = [](Machine& m) {
    const Vec a = m.in(1), b = m.in(2);
    Vec v;
    for (int i = 0; i < m.bytes / 4; ++i)
      v.set<uint32_t>(i, ((m.mask >> i) & 1 ? b : m.zeroing ? Vec() : a).get<uint32_t>(i));
    m.mask = ~0ull;
    m.out(v, 4);
  };
  ON(VBLENDPS) = ON(VPBLENDD) = [](Machine& m) {
    const Vec a = m.in(1), b = m.in(2);
    Vec v;
    for (int i = 0; i < m.bytes / 4; ++i) v.set<uint32_t>(i, ((m.imm(3) >> i) & 1 ? b : a).get<uint32_t>(i));
    m.out(v, 4);
  };
}

void add_shuffles(Table& t) {
  ON(VPSHUFB) = [](Machine& m) {
    const Vec a = m.in(1), index = m.in(2);
    Vec v;
    for (int i = 0; i < m.bytes; ++i) v.b[i] = index.b[i] & 0x80 ? 0 : a.b[(i & ~15) + (index.b[i] & 15)];
    m.out(v, 1);
  };
  ON(VPSHUFD) = ON(VPERMILPS) = shuffle_bytes_in_lanes<uint32_t>([](int i, int imm) { return (imm >> (2 * i)) & 3; });
  ON(VPSRLDQ) = [](Machine& m) {
    const Vec a = m.in(1);
    Vec v;
    for (int i = 0; i < m.bytes; ++i) v.b[i] = (i & 15) + m.imm(2) > 15 ? 0 : a.b[i + m.imm(2)];
    m.out(v, 1);
  };
  ON(VPSLLDQ) = [](Machine& m) {
    const Vec a = m.in(1);
    Vec v;
    for (int i = 0; i < m.bytes; ++i) v.b[i] = (i & 15) < m.imm(2) ? 0 : a.b[i - m.imm(2)];
    m.out(v, 1);
  };
  ON(VSHUFPS) = [](Machine& m) {
    const Vec a = m.in(1), b = m.in(2);
    Vec v;
    for (int i = 0; i < m.bytes / 4; ++i)
      v.set<uint32_t>(i, (i % 4 < 2 ? a : b).get<uint32_t>(i / 4 * 4 + ((m.imm(3) >> (2 * (i % 4))) & 3)));
    m.out(v, 4);
  };
  ON(VPUNPCKLBW) = unpack<uint8_t>(false);
  ON(VPUNPCKHBW) = unpack<uint8_t>(true);
  ON(VPUNPCKLWD) = unpack<uint16_t>(false);
  ON(VPUNPCKHWD) = unpack<uint16_t>(true);
  ON(VPUNPCKLDQ) = ON(VUNPCKLPS) = unpack<uint32_t>(false);
  ON(VPUNPCKHDQ) = ON(VUNPCKHPS) = unpack<uint32_t>(true);
  ON(VPUNPCKLQDQ) = ON(VUNPCKLPD) = unpack<uint64_t>(false);
  ON(VPUNPCKHQDQ) = ON(VUNPCKHPD) = unpack<uint64_t>(true);
  ON(VPACKSSDW) = pack_saturated<int32_t, int16_t>();
  ON(VPACKSSWB) = pack_saturated<int16_t, int8_t>();
  ON(VPACKUSDW) = pack_saturated<int32_t, uint16_t>();
  ON(VPACKUSWB) = pack_saturated<int16_t, uint8_t>();
  ON(VPERMD) = ON(VPERMPS) = permute<uint32_t>();
  ON(VPERMW) = permute<uint16_t>();
  ON(VPERMQ) = ON(VPERMPD) = [](Machine& m) {
    if (m.op(2).type != ZYDIS_OPERAND_TYPE_IMMEDIATE) return permute<uint64_t>()(m);
    const Vec a = m.in(1);
    Vec v;
    for (int i = 0; i < m.bytes / 8; ++i) v.set<uint64_t>(i, a.get<uint64_t>(i / 4 * 4 + ((m.imm(2) >> (2 * (i % 4))) & 3)));
    m.out(v, 8);
  };
  ON(VPERM2I128) = ON(VPERM2F128) = [](Machine& m) {
    const Vec a = m.in(1), b = m.in(2);
    Vec v;
    for (int half = 0; half < 2; ++half) {
      const int select = m.imm(3) >> (4 * half);
      if (!(select & 8)) std::memcpy(v.b + 16 * half, (select & 2 ? b : a).b + 16 * (select & 1), 16);
    }
    m.out(v, 4);
  };
  ON(VSHUFF32X4) = ON(VSHUFI32X4) = ON(VSHUFF64X2) = ON(VSHUFI64X2) = [](Machine& m) {
    const Vec a = m.in(1), b = m.in(2);
    const int lanes = m.bytes / 16, bits = lanes == 4 ? 2 : 1;
    Vec v;
    for (int i = 0; i < lanes; ++i) {
      const int select = (m.imm(3) >> (bits * i)) & ((1 << bits) - 1);
      std::memcpy(v.b + 16 * i, (i < lanes / 2 ? a : b).b + 16 * select, 16);
    }
    m.out(v, 4);
  };
  ON(VMOVHLPS) = [](Machine& m) {
    Vec v = m.in(1);
    const Vec b = m.in(2);
    std::memcpy(v.b, b.b + 8, 8);
    m.out(v, 4, 16);
  };
  ON(VMOVSHDUP) = shuffle_bytes_in_lanes<uint32_t>([](int i, int) { return i | 1; });
  ON(VPALIGNR) = [](Machine& m) {
    const Vec a = m.in(1), b = m.in(2);
    Vec v;
    for (int i = 0; i < m.bytes; ++i) {
      const int at = (i & 15) + m.imm(3), lane = i & ~15;
      v.b[i] = at < 16 ? b.b[lane + at] : at < 32 ? a.b[lane + at - 16] : 0;
    }
    m.out(v, 1);
  };
}

void add_masks(Table& t) {
  const auto move = [](int bits) {
    return [bits](Machine& m) {
      const uint64_t keep = bits == 64 ? ~0ull : (1ull << bits) - 1;
      const uint64_t v = m.in(1).get<uint64_t>(0) & keep;
      if (m.is_memory(0)) m.out([&] { Vec x; x.set<uint64_t>(0, v); return x; }(), bits / 8, bits / 8);
      else if (is_mask_register(m.op(0).reg.value)) m.out_mask(v);
      else m.out_gpr(v);
    };
  };
  ON(KMOVB) = move(8);
  ON(KMOVW) = move(16);
  ON(KMOVD) = move(32);
  ON(KMOVQ) = move(64);
  const auto two = [](int bits, auto f) {
    return [bits, f](Machine& m) {
      const uint64_t keep = bits == 64 ? ~0ull : (1ull << bits) - 1;
      m.out_mask(f(m.in(1).get<uint64_t>(0), m.count > 2 ? m.in(2).get<uint64_t>(0) : 0) & keep);
    };
  };
  const auto and_ = [](uint64_t a, uint64_t b) { return a & b; };
  const auto or_ = [](uint64_t a, uint64_t b) { return a | b; };
  const auto xnor = [](uint64_t a, uint64_t b) { return ~(a ^ b); };
  const auto not_ = [](uint64_t a, uint64_t) { return ~a; };
  ON(KANDW) = two(16, and_), ON(KANDD) = two(32, and_), ON(KANDQ) = two(64, and_);
  ON(KORW) = two(16, or_), ON(KORD) = two(32, or_), ON(KORQ) = two(64, or_);
  ON(KXNORW) = two(16, xnor), ON(KXNORD) = two(32, xnor), ON(KXNORQ) = two(64, xnor);
  ON(KNOTW) = two(16, not_), ON(KNOTD) = two(32, not_), ON(KNOTQ) = two(64, not_);
  ON(VPCMPD) = compare<int32_t>(compare_int);
  ON(VPCMPB) = compare<int8_t>(compare_int);
  ON(VPCMPUD) = compare<uint32_t>([](uint32_t a, uint32_t b, int p) { return compare_int(a, b, p); });
  ON(VPCMPUB) = compare<uint8_t>(compare_int);
  ON(VPCMPEQD) = compare<int32_t>(compare_int, 0);
  ON(VPCMPEQB) = compare<int8_t>(compare_int, 0);
  ON(VPCMPEQW) = compare<int16_t>(compare_int, 0);
  ON(VPCMPGTD) = compare<int32_t>(compare_int, 6);
  ON(VPCMPGTB) = compare<int8_t>(compare_int, 6);
  ON(VPCMPGTW) = compare<int16_t>(compare_int, 6);
  ON(VPTESTMD) = [](Machine& m) {
    const Vec a = m.in(1), b = m.in(2);
    uint64_t bits = 0;
    for (int i = 0; i < m.bytes / 4; ++i)
      bits |= static_cast<uint64_t>((a.get<uint32_t>(i) & b.get<uint32_t>(i)) != 0) << i;
    m.out_mask(bits & m.mask);
  };
  ON(VMOVMSKPS) = [](Machine& m) {
    const Vec a = m.in(1);
    uint64_t bits = 0;
    for (int i = 0; i < m.bytes / 4; ++i) bits |= static_cast<uint64_t>(a.get<int32_t>(i) < 0) << i;
    m.out_gpr(bits);
  };
  ON(VPMOVMSKB) = [](Machine& m) {
    const Vec a = m.in(1);
    uint64_t bits = 0;
    for (int i = 0; i < m.bytes; ++i) bits |= static_cast<uint64_t>(a.b[i] >> 7) << i;
    m.out_gpr(bits);
  };
}

#undef ON

}  // namespace

bool execute_vector(State& s, const Decoded& d) {
  const auto found = handlers().find(d.in.mnemonic);
  if (found == handlers().end()) return false;
  Machine m(s, d);
  found->second(m);
  return true;
}

}  // namespace nibble::emulator
