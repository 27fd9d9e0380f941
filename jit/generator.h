// SPDX-License-Identifier: Apache-2.0
// Base of all emitters: prologue and epilogue of the System V ABI, stack frame, constants behind the code, and the
// way from emitted bytes to an executable page (written first, then made read and execute only).
#pragma once

#include <xbyak/xbyak.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <type_traits>

#include "jit/code.h"
#include "tensor/cpu.h"

namespace nibble::jit {

namespace detail {
/// Room that an emitter writes into; pages that are never written cost nothing.
struct EmitBuffer {
  EmitBuffer();
  ~EmitBuffer();
  EmitBuffer(const EmitBuffer&) = delete;
  EmitBuffer& operator=(const EmitBuffer&) = delete;
  static constexpr size_t emit_bytes = size_t{4} << 20;
  void* data = nullptr;
};
}  // namespace detail

/// Emitted functions take one pointer to an argument struct, which arrives in `rdi`. rax, rcx, rdx, rsi, r8-r11 and all
/// vector registers are free; rbx, rbp, r12-r15 are saved by prologue(). rsp is 64-byte aligned after prologue() and
/// [rsp, rsp + frame_bytes) is the emitter's. Not thread safe; an emitter is used once.
class Generator : private detail::EmitBuffer, public Xbyak::CodeGenerator {
 public:
  explicit Generator(Isa isa);

  /// Appends the constants and copies the code to an executable page of its own. Throws Error naming `code_name` when
  /// xbyak reports an error or the system refuses.
  Code finish(const std::string& code_name);

  Isa isa() const { return isa_; }
  bool evex() const { return isa_ >= Isa::avx512vnni; }
  int vector_bytes() const { return evex() ? 64 : 32; }
  int vector_floats() const { return vector_bytes() / 4; }
  int vector_count() const { return evex() ? 32 : 16; }  ///< registers
  /// Vector register `i` at the full width of the instruction set.
  Xbyak::Xmm vec(int i) const {
    if (evex()) return Xbyak::Zmm(i);
    return Xbyak::Ymm(i);
  }

  /// Saves registers, sets up the frame; in debug builds fills every vector register with NaN, so that a use before
  /// a definition shows.
  void prologue(int frame_bytes = 0);
  /// Undoes prologue() and returns.
  void epilogue();

  /// A 64-byte constant behind the code, every dword / every 16 bytes alike; equal constants share their bytes.
  Xbyak::Address constant(uint32_t value);
  Xbyak::Address constant(float value);
  Xbyak::Address constant(const std::array<uint8_t, 16>& value);
  /// The same with all bytes given.
  Xbyak::Address constant(const std::array<uint8_t, 64>& value);

  // The same bitwise operations under the names that VEX and EVEX give them.
  void and_vec(const Xbyak::Xmm& dst, const Xbyak::Xmm& a, const Xbyak::Operand& b);
  void or_vec(const Xbyak::Xmm& dst, const Xbyak::Xmm& a, const Xbyak::Operand& b);
  void xor_vec(const Xbyak::Xmm& dst, const Xbyak::Xmm& a, const Xbyak::Operand& b);
  void zero(const Xbyak::Xmm& dst) { xor_vec(dst, dst, dst); }

 private:
  const Isa isa_;
  std::map<std::array<uint8_t, 64>, Xbyak::Label> constants_;
};

/// Where a member of an argument struct is, in bytes. Standard layout structs only.
template <class Struct, class Field>
size_t offset_of(Field Struct::*field) {
  static_assert(std::is_standard_layout_v<Struct> && std::is_default_constructible_v<Struct>);
  static const Struct probe{};
  return static_cast<size_t>(reinterpret_cast<const std::byte*>(&(probe.*field)) -
                             reinterpret_cast<const std::byte*>(&probe));
}
/// Address of member `field` of the argument struct in `base`: arg(rdi, &GemmArgs::act).
template <class Struct, class Field>
Xbyak::Address arg(const Xbyak::RegExp& base, Field Struct::*field) {
  return Xbyak::util::ptr[base + offset_of(field)];
}

}  // namespace nibble::jit
