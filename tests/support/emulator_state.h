// SPDX-License-Identifier: Apache-2.0
// The register state shared by the two halves of the emulator.
#pragma once

#include <Zydis/Zydis.h>

#include <cstdint>
#include <cstring>

namespace nibble::emulator {

/// A zmm register. Element indices wrap, so the compiler can see that accesses stay inside.
struct alignas(64) Vec {
  uint8_t b[64] = {};
  template <class T>
  T get(int i) const {
    T v;
    std::memcpy(&v, b + (static_cast<size_t>(i) * sizeof(T) & 63), sizeof(T));
    return v;
  }
  template <class T>
  void set(int i, T v) {
    std::memcpy(b + (static_cast<size_t>(i) * sizeof(T) & 63), &v, sizeof(T));
  }
};

struct Decoded {
  uint64_t address = 0, epoch = 0;
  ZydisDecodedInstruction in;
  ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};

struct State {
  uint64_t gpr[16] = {};  // rax rcx rdx rbx rsp rbp rsi rdi r8..r15
  uint64_t rip = 0;
  bool cf = false, zf = false, sf = false, of = false, pf = false;
  Vec v[32];
  uint64_t k[8] = {};

  uint64_t address(const ZydisDecodedOperand& op, uint64_t next) const;
};

int gpr_index(ZydisRegister reg);
int vector_index(ZydisRegister reg);  // -1 when it is not a vector register
bool is_mask_register(ZydisRegister reg);

/// Ends the process, saying why and at which instruction.
[[noreturn]] void stop(const Decoded& d, const char* why);

/// Executes an AMX instruction on the calling thread's tiles; false when it is not one that is known.
bool execute_tile(State& s, const Decoded& d);
/// Executes a vector or mask instruction; false when it is not one that is known.
bool execute_vector(State& s, const Decoded& d);

}  // namespace nibble::emulator
