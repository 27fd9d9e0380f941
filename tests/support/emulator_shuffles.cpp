// SPDX-License-Identifier: Apache-2.0
// Vector instructions of the emulator: shuffles, compares and mask registers.
#include "tests/support/emulator_machine.h"

namespace nibble::emulator {

#define ON(mnemonic) t[ZYDIS_MNEMONIC_##mnemonic]

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
    for (int i = 0; i < m.bytes / 8; ++i)
      v.set<uint64_t>(i, a.get<uint64_t>(i / 4 * 4 + ((m.imm(2) >> (2 * (i % 4))) & 3)));
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

}  // namespace nibble::emulator
