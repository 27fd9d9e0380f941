// SPDX-License-Identifier: Apache-2.0
// Trap, decode, general-purpose instructions. Vector instructions are in emulator_vector.cpp, tiles in
// emulator_tiles.cpp.
#include "tests/support/emulator.h"

#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "tensor/cpu.h"
#include "tests/support/emulator_state.h"

namespace nibble::emulator {

namespace {

std::atomic<long long> executed_total{0};

constexpr int greg_order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
constexpr size_t xmm_offset = 160, ymm_high_offset = 576;  // standard XSAVE layout of the signal frame

uint64_t width_mask(int bits) { return bits == 64 ? ~0ull : (1ull << bits) - 1; }

uint64_t read_memory(uint64_t address, int bits) {
  uint64_t v = 0;
  std::memcpy(&v, reinterpret_cast<const void*>(address), static_cast<size_t>(bits / 8));
  return v;
}

class Scalar {
 public:
  Scalar(State& s, const Decoded& d) : s_(s), d_(d), next_(s.rip + d.in.length) {}

  bool execute();
  uint64_t next() const { return next_; }

 private:
  uint64_t read(int i) const {
    const ZydisDecodedOperand& op = d_.op[i];
    if (op.type == ZYDIS_OPERAND_TYPE_IMMEDIATE) return op.imm.value.u;
    if (op.type == ZYDIS_OPERAND_TYPE_MEMORY) return read_memory(s_.address(op, next_), op.size);
    const int r = gpr_index(op.reg.value);
    if (r < 0) stop(d_, "operand");
    const bool high = op.reg.value >= ZYDIS_REGISTER_AH && op.reg.value <= ZYDIS_REGISTER_BH;
    return (s_.gpr[r] >> (high ? 8 : 0)) & width_mask(op.size);
  }
  void write(int i, uint64_t v) {
    const ZydisDecodedOperand& op = d_.op[i];
    if (op.type == ZYDIS_OPERAND_TYPE_MEMORY) {
      std::memcpy(reinterpret_cast<void*>(s_.address(op, next_)), &v, static_cast<size_t>(op.size / 8));
      return;
    }
    const int r = gpr_index(op.reg.value);
    if (r < 0) stop(d_, "operand");
    if (op.size >= 32) s_.gpr[r] = v & width_mask(op.size);
    else s_.gpr[r] = (s_.gpr[r] & ~width_mask(op.size)) | (v & width_mask(op.size));
  }
  int64_t read_signed(int i) const {
    const int bits = d_.op[i].size;
    if (d_.op[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) return d_.op[i].imm.value.s;
    return static_cast<int64_t>(read(i) << (64 - bits)) >> (64 - bits);
  }
  void logic_flags(uint64_t v, int bits) {
    v &= width_mask(bits);
    s_.zf = v == 0;
    s_.sf = (v >> (bits - 1)) & 1;
    s_.pf = std::popcount(v & 0xff) % 2 == 0;
    s_.cf = s_.of = false;
  }
  uint64_t add(uint64_t a, uint64_t b, int bits, bool carry_in) {
    const uint64_t m = width_mask(bits);
    a &= m, b &= m;
    const uint64_t v = (a + b + carry_in) & m;
    logic_flags(v, bits);
    s_.cf = carry_in ? v <= a : v < a;
    s_.of = (((a ^ v) & (b ^ v)) >> (bits - 1)) & 1;
    return v;
  }
  uint64_t subtract(uint64_t a, uint64_t b, int bits) {
    const uint64_t m = width_mask(bits);
    a &= m, b &= m;
    const uint64_t v = (a - b) & m;
    logic_flags(v, bits);
    s_.cf = a < b;
    s_.of = (((a ^ b) & (a ^ v)) >> (bits - 1)) & 1;
    return v;
  }
  bool condition(ZydisMnemonic m) const;
  bool execute_alu();
  bool execute_control();

  State& s_;
  const Decoded& d_;
  uint64_t next_;
};

bool Scalar::condition(ZydisMnemonic m) const {
  switch (m) {
    case ZYDIS_MNEMONIC_JZ: case ZYDIS_MNEMONIC_CMOVZ: case ZYDIS_MNEMONIC_SETZ: return s_.zf;
    case ZYDIS_MNEMONIC_JNZ: case ZYDIS_MNEMONIC_CMOVNZ: case ZYDIS_MNEMONIC_SETNZ: return !s_.zf;
    case ZYDIS_MNEMONIC_JB: case ZYDIS_MNEMONIC_CMOVB: case ZYDIS_MNEMONIC_SETB: return s_.cf;
    case ZYDIS_MNEMONIC_JNB: case ZYDIS_MNEMONIC_CMOVNB: case ZYDIS_MNEMONIC_SETNB: return !s_.cf;
    case ZYDIS_MNEMONIC_JBE: case ZYDIS_MNEMONIC_CMOVBE: case ZYDIS_MNEMONIC_SETBE: return s_.cf || s_.zf;
    case ZYDIS_MNEMONIC_JNBE: case ZYDIS_MNEMONIC_CMOVNBE: case ZYDIS_MNEMONIC_SETNBE: return !s_.cf && !s_.zf;
    case ZYDIS_MNEMONIC_JL: case ZYDIS_MNEMONIC_CMOVL: case ZYDIS_MNEMONIC_SETL: return s_.sf != s_.of;
    case ZYDIS_MNEMONIC_JNL: case ZYDIS_MNEMONIC_CMOVNL: case ZYDIS_MNEMONIC_SETNL: return s_.sf == s_.of;
    case ZYDIS_MNEMONIC_JLE: case ZYDIS_MNEMONIC_CMOVLE: case ZYDIS_MNEMONIC_SETLE: return s_.zf || s_.sf != s_.of;
    case ZYDIS_MNEMONIC_JNLE: case ZYDIS_MNEMONIC_CMOVNLE: case ZYDIS_MNEMONIC_SETNLE:
      return !s_.zf && s_.sf == s_.of;
    case ZYDIS_MNEMONIC_JS: case ZYDIS_MNEMONIC_CMOVS: case ZYDIS_MNEMONIC_SETS: return s_.sf;
    case ZYDIS_MNEMONIC_JNS: case ZYDIS_MNEMONIC_CMOVNS: case ZYDIS_MNEMONIC_SETNS: return !s_.sf;
    case ZYDIS_MNEMONIC_JO: return s_.of;
    case ZYDIS_MNEMONIC_JNO: return !s_.of;
    case ZYDIS_MNEMONIC_JP: return s_.pf;
    case ZYDIS_MNEMONIC_JNP: return !s_.pf;
    default: stop(d_, "condition");
  }
}

bool Scalar::execute_alu() {
  const int bits = d_.op[0].size;
  switch (d_.in.mnemonic) {
    case ZYDIS_MNEMONIC_MOV: write(0, read(1)); return true;
    case ZYDIS_MNEMONIC_MOVZX: write(0, read(1)); return true;
    case ZYDIS_MNEMONIC_MOVSX: case ZYDIS_MNEMONIC_MOVSXD: write(0, static_cast<uint64_t>(read_signed(1))); return true;
    case ZYDIS_MNEMONIC_LEA: write(0, s_.address(d_.op[1], next_)); return true;
    case ZYDIS_MNEMONIC_ADD: write(0, add(read(0), static_cast<uint64_t>(read_signed(1)), bits, false)); return true;
    case ZYDIS_MNEMONIC_ADC: write(0, add(read(0), static_cast<uint64_t>(read_signed(1)), bits, s_.cf)); return true;
    case ZYDIS_MNEMONIC_SUB: write(0, subtract(read(0), static_cast<uint64_t>(read_signed(1)), bits)); return true;
    case ZYDIS_MNEMONIC_CMP: subtract(read(0), static_cast<uint64_t>(read_signed(1)), bits); return true;
    case ZYDIS_MNEMONIC_TEST: logic_flags(read(0) & static_cast<uint64_t>(read_signed(1)), bits); return true;
    case ZYDIS_MNEMONIC_AND: case ZYDIS_MNEMONIC_OR: case ZYDIS_MNEMONIC_XOR: {
      const uint64_t a = read(0), b = static_cast<uint64_t>(read_signed(1));
      const uint64_t v = d_.in.mnemonic == ZYDIS_MNEMONIC_AND ? (a & b)
                         : d_.in.mnemonic == ZYDIS_MNEMONIC_OR ? (a | b) : (a ^ b);
      logic_flags(v, bits);
      write(0, v);
      return true;
    }
    case ZYDIS_MNEMONIC_INC: case ZYDIS_MNEMONIC_DEC: {
      const bool carry = s_.cf;
      const uint64_t a = read(0);
      write(0, d_.in.mnemonic == ZYDIS_MNEMONIC_INC ? add(a, 1, bits, false) : subtract(a, 1, bits));
      s_.cf = carry;
      return true;
    }
    case ZYDIS_MNEMONIC_NEG: write(0, subtract(0, read(0), bits)); return true;
    case ZYDIS_MNEMONIC_NOT: write(0, ~read(0)); return true;
    case ZYDIS_MNEMONIC_IMUL: {
      if (d_.in.operand_count_visible < 2) stop(d_, "one-operand form");
      const bool three = d_.in.operand_count_visible == 3;
      write(0, static_cast<uint64_t>(read_signed(three ? 1 : 0)) * static_cast<uint64_t>(read_signed(three ? 2 : 1)));
      return true;
    }
    case ZYDIS_MNEMONIC_SHL: case ZYDIS_MNEMONIC_SHR: case ZYDIS_MNEMONIC_SAR: {
      const int count = static_cast<int>(read(1) & (bits == 64 ? 63 : 31));
      if (count == 0) return true;
      const uint64_t a = read(0);
      const uint64_t v = d_.in.mnemonic == ZYDIS_MNEMONIC_SHL   ? a << count
                         : d_.in.mnemonic == ZYDIS_MNEMONIC_SHR ? a >> count
                                                                : static_cast<uint64_t>(read_signed(0) >> count);
      const bool carry = d_.in.mnemonic == ZYDIS_MNEMONIC_SHL ? (a >> (bits - count)) & 1 : (a >> (count - 1)) & 1;
      logic_flags(v, bits);
      s_.cf = carry;
      write(0, v);
      return true;
    }
    case ZYDIS_MNEMONIC_SHLX: write(0, read(1) << (read(2) & (bits == 64 ? 63 : 31))); return true;
    case ZYDIS_MNEMONIC_SHRX: write(0, read(1) >> (read(2) & (bits == 64 ? 63 : 31))); return true;
    case ZYDIS_MNEMONIC_BZHI: {
      const int n = static_cast<int>(read(2) & 0xff);
      const uint64_t v = n >= bits ? read(1) : read(1) & ((1ull << n) - 1);
      logic_flags(v, bits);
      s_.cf = n >= bits;
      write(0, v);
      return true;
    }
    case ZYDIS_MNEMONIC_POPCNT: write(0, static_cast<uint64_t>(std::popcount(read(1)))); return true;
    case ZYDIS_MNEMONIC_XCHG: {
      const uint64_t a = read(0), b = read(1);
      write(0, b), write(1, a);
      return true;
    }
    default: return false;
  }
}

bool Scalar::execute_control() {
  switch (d_.in.mnemonic) {
    case ZYDIS_MNEMONIC_NOP: case ZYDIS_MNEMONIC_ENDBR64: case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1: case ZYDIS_MNEMONIC_PREFETCHT2: case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHW: case ZYDIS_MNEMONIC_SFENCE: return true;
    case ZYDIS_MNEMONIC_PUSH: {
      const uint64_t v = static_cast<uint64_t>(read_signed(0));
      s_.gpr[4] -= 8;
      std::memcpy(reinterpret_cast<void*>(s_.gpr[4]), &v, 8);
      return true;
    }
    case ZYDIS_MNEMONIC_POP: {
      const uint64_t v = read_memory(s_.gpr[4], 64);
      s_.gpr[4] += 8;
      write(0, v);
      return true;
    }
    case ZYDIS_MNEMONIC_JMP:
      if (d_.op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) next_ += static_cast<uint64_t>(d_.op[0].imm.value.s);
      else next_ = read(0);
      return true;
    default: break;
  }
  const ZydisInstructionCategory category = d_.in.meta.category;
  if (category == ZYDIS_CATEGORY_COND_BR) {
    if (condition(d_.in.mnemonic)) next_ += static_cast<uint64_t>(d_.op[0].imm.value.s);
    return true;
  }
  if (category == ZYDIS_CATEGORY_CMOV) {
    write(0, condition(d_.in.mnemonic) ? read(1) : read(0));
    return true;
  }
  if (category == ZYDIS_CATEGORY_SETCC) {
    write(0, condition(d_.in.mnemonic));
    return true;
  }
  return false;
}

bool Scalar::execute() { return execute_control() || execute_alu(); }

/// Runs until the generated function returns to its caller, or calls out.
void interpret(State& s) {
  thread_local std::vector<Decoded> cache(4096);
  thread_local uint64_t epoch = 0;
  ++epoch;
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  long long count = 0;
  int depth = 0;
  for (;; ++count) {
    Decoded& d = cache[(s.rip ^ (s.rip >> 12)) & 4095];
    if (d.address != s.rip || d.epoch != epoch) {
      d.address = s.rip, d.epoch = epoch;
      if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, reinterpret_cast<const void*>(s.rip), 15, &d.in, d.op)))
        stop(d, "undecodable");
    }
    if (d.in.mnemonic == ZYDIS_MNEMONIC_RET) {
      s.rip = read_memory(s.gpr[4], 64);
      s.gpr[4] += 8;
      if (depth-- == 0) break;
      continue;
    }
    if (d.in.mnemonic == ZYDIS_MNEMONIC_CALL) {
      if (d.op[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE) break;  // leaves for native code; traps again on return
      const uint64_t back = s.rip + d.in.length;
      s.gpr[4] -= 8;
      std::memcpy(reinterpret_cast<void*>(s.gpr[4]), &back, 8);
      s.rip = back + static_cast<uint64_t>(d.op[0].imm.value.s);
      ++depth;
      continue;
    }
    Scalar scalar(s, d);
    if (!scalar.execute() && !execute_vector(s, d) && !execute_tile(s, d)) stop(d, "unknown instruction");
    s.rip = scalar.next();
  }
  executed_total += count;
}

void on_sigill(int, siginfo_t*, void* context) {
  thread_local State s;
  auto* uc = static_cast<ucontext_t*>(context);
  auto* area = reinterpret_cast<uint8_t*>(uc->uc_mcontext.fpregs);
  for (int i = 0; i < 16; ++i) s.gpr[i] = static_cast<uint64_t>(uc->uc_mcontext.gregs[greg_order[i]]);
  s.rip = static_cast<uint64_t>(uc->uc_mcontext.gregs[REG_RIP]);
  const auto flags = static_cast<uint64_t>(uc->uc_mcontext.gregs[REG_EFL]);
  s.cf = flags & 1, s.pf = flags & 4, s.zf = flags & 0x40, s.sf = flags & 0x80, s.of = flags & 0x800;
  for (int i = 0; i < 32; ++i) {
    std::memset(s.v[i].b, i < 16 ? 0 : 0xff, 64);  // NaN where nothing may be expected to survive
    if (i >= 16) continue;
    std::memcpy(s.v[i].b, area + xmm_offset + 16 * i, 16);
    std::memcpy(s.v[i].b + 16, area + ymm_high_offset + 16 * i, 16);
  }
  interpret(s);
  for (int i = 0; i < 16; ++i) {
    uc->uc_mcontext.gregs[greg_order[i]] = static_cast<greg_t>(s.gpr[i]);
    std::memcpy(area + xmm_offset + 16 * i, s.v[i].b, 16);
    std::memcpy(area + ymm_high_offset + 16 * i, s.v[i].b + 16, 16);
  }
  uint64_t xstate_bv;
  std::memcpy(&xstate_bv, area + 512, 8);
  xstate_bv |= 6;  // SSE and AVX parts are live
  std::memcpy(area + 512, &xstate_bv, 8);
  uc->uc_mcontext.gregs[REG_RIP] = static_cast<greg_t>(s.rip);
}

}  // namespace

void stop(const Decoded& d, const char* why) {
  char line[256];
  const int n = std::snprintf(line, sizeof line, "emulator: %s: %s at %#llx\n", why,
                              ZydisMnemonicGetString(d.in.mnemonic), static_cast<unsigned long long>(d.address));
  if (write(2, line, static_cast<size_t>(n)) < 0) _exit(99);
  abort();
}

int gpr_index(ZydisRegister reg) {
  if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH) return reg - ZYDIS_REGISTER_AH;
  const ZydisRegister wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
  if (wide < ZYDIS_REGISTER_RAX || wide > ZYDIS_REGISTER_R15) return -1;
  return wide - ZYDIS_REGISTER_RAX;
}

int vector_index(ZydisRegister reg) {
  if (reg >= ZYDIS_REGISTER_XMM0 && reg <= ZYDIS_REGISTER_XMM31) return reg - ZYDIS_REGISTER_XMM0;
  if (reg >= ZYDIS_REGISTER_YMM0 && reg <= ZYDIS_REGISTER_YMM31) return reg - ZYDIS_REGISTER_YMM0;
  if (reg >= ZYDIS_REGISTER_ZMM0 && reg <= ZYDIS_REGISTER_ZMM31) return reg - ZYDIS_REGISTER_ZMM0;
  return -1;
}

bool is_mask_register(ZydisRegister reg) { return reg >= ZYDIS_REGISTER_K0 && reg <= ZYDIS_REGISTER_K7; }

uint64_t State::address(const ZydisDecodedOperand& op, uint64_t next) const {
  uint64_t a = op.mem.disp.has_displacement ? static_cast<uint64_t>(op.mem.disp.value) : 0;
  if (op.mem.base == ZYDIS_REGISTER_RIP) a += next;
  else if (op.mem.base != ZYDIS_REGISTER_NONE) a += gpr[gpr_index(op.mem.base)];
  if (op.mem.index != ZYDIS_REGISTER_NONE) a += gpr[gpr_index(op.mem.index)] * op.mem.scale;
  return a;
}

void install() {
  struct sigaction action = {};
  action.sa_sigaction = on_sigill;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGILL, &action, nullptr);
  allow_unsupported();
}

long long executed() { return executed_total; }

}  // namespace nibble::emulator
