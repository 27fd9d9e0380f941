// SPDX-License-Identifier: Apache-2.0
// Vector instructions of the emulator: moves, integers, floats.
#include "tensor/dtype.h"
#include "tests/support/emulator_machine.h"

namespace nibble::emulator {

namespace {

void add_moves(Table& t);
void add_integers(Table& t);
void add_floats(Table& t);

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
  ON(VPSRAVD) =
      binary<int32_t>([](int32_t a, int32_t n) { return a >> std::min<uint32_t>(static_cast<uint32_t>(n), 31); });
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
      const int sum =
          u.get<uint8_t>(2 * i) * s.get<int8_t>(2 * i) + u.get<uint8_t>(2 * i + 1) * s.get<int8_t>(2 * i + 1);
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
  ON(VPDPWSSD) = [](Machine& m) {
    const Vec acc = m.in(0), a = m.in(1), b = m.in(2);
    Vec v;
    for (int i = 0; i < m.bytes / 4; ++i) {
      int64_t sum = acc.get<int32_t>(i);
      for (int j = 0; j < 2; ++j) sum += int64_t{a.get<int16_t>(2 * i + j)} * b.get<int16_t>(2 * i + j);
      v.set<uint32_t>(i, static_cast<uint32_t>(sum));
    }
    m.out(v, 4);
  };
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
