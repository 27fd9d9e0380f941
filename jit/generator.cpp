// SPDX-License-Identifier: Apache-2.0
#include "jit/generator.h"

#include <sys/mman.h>

#include <bit>

#include "tensor/check.h"

namespace nibble::jit {

detail::EmitBuffer::EmitBuffer()
    : data(mmap(nullptr, emit_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
  NIBBLE_CHECK(data != MAP_FAILED, "the system gives no memory to write code into");
}

detail::EmitBuffer::~EmitBuffer() { munmap(data, emit_bytes); }

Generator::Generator(Isa isa) : Xbyak::CodeGenerator(EmitBuffer::emit_bytes, EmitBuffer::data), isa_(isa) {}

Code Generator::finish(const std::string& code_name) {
  try {
    align(64);
    for (auto& [value, label] : constants_) {
      L(label);
      for (const uint8_t b : value) db(b);
    }
    ready();
  } catch (const Xbyak::Error& e) {
    fail(code_name, ": ", e.what());
  }
  return Code(code_name, {getCode(), getSize()});
}

void Generator::prologue(int frame_bytes) {
  for (const Xbyak::Reg64& r : {rbx, rbp, r12, r13, r14, r15}) push(r);
  mov(rbp, rsp);
  if (frame_bytes > 0) sub(rsp, frame_bytes);
  and_(rsp, -64);
#ifndef NDEBUG
  vpcmpeqd(ymm0, ymm0, ymm0);
  for (int i = 1; i < 16; ++i) vmovdqa(Xbyak::Ymm(i), ymm0);
  if (evex()) {
    for (int i = 0; i < 32; ++i) vpternlogd(Xbyak::Zmm(i), Xbyak::Zmm(i), Xbyak::Zmm(i), 0xff);
  }
#endif
}

void Generator::epilogue() {
  mov(rsp, rbp);
  const Xbyak::Reg64 saved[] = {r15, r14, r13, r12, rbp, rbx};
  vzeroupper();
  for (const Xbyak::Reg64& r : saved) pop(r);
  ret();
}

Xbyak::Address Generator::constant(const std::array<uint8_t, 64>& value) { return ptr[rip + constants_[value]]; }

Xbyak::Address Generator::constant(const std::array<uint8_t, 16>& value) {
  std::array<uint8_t, 64> repeated;
  for (size_t i = 0; i < repeated.size(); ++i) repeated[i] = value[i % value.size()];
  return constant(repeated);
}

Xbyak::Address Generator::constant(uint32_t value) {
  std::array<uint8_t, 16> repeated;
  for (size_t i = 0; i < 16; ++i) repeated[i] = static_cast<uint8_t>(value >> (8 * (i % 4)));
  return constant(repeated);
}

Xbyak::Address Generator::constant(float value) { return constant(std::bit_cast<uint32_t>(value)); }

void Generator::and_vec(const Xbyak::Xmm& dst, const Xbyak::Xmm& a, const Xbyak::Operand& b) {
  if (evex()) {
    vpandd(dst, a, b);
  } else {
    vpand(dst, a, b);
  }
}

void Generator::or_vec(const Xbyak::Xmm& dst, const Xbyak::Xmm& a, const Xbyak::Operand& b) {
  if (evex()) {
    vpord(dst, a, b);
  } else {
    vpor(dst, a, b);
  }
}

void Generator::xor_vec(const Xbyak::Xmm& dst, const Xbyak::Xmm& a, const Xbyak::Operand& b) {
  if (evex()) {
    vpxord(dst, a, b);
  } else {
    vpxor(dst, a, b);
  }
}

}  // namespace nibble::jit
