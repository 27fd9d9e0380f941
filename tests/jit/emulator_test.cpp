// SPDX-License-Identifier: Apache-2.0
// Code with AVX-512 and AVX-VNNI instructions gives the results that plain loops give, on any CPU.
#include "tests/support/emulator.h"

#include <gtest/gtest.h>
#include <xbyak/xbyak.h>

#include <array>
#include <cstddef>
#include <numeric>

#include "tensor/cpu.h"

namespace nibble {
namespace {

struct Args {
  const uint8_t* codes;  // (4, 64)
  const int8_t* act;     // (4, 4)
  const float* scale;    // 16
  float* out;            // 16, only the first `columns` are written
  uint64_t columns;
};

/// out[c] = scale[c] * sum over 4 steps of codes[step][4c..] . act[step], stored under a mask.
class DotKernel : public Xbyak::CodeGenerator {
 public:
  DotKernel() : CodeGenerator(4096) {
    const auto field = [&](size_t offset) { return ptr[rdi + static_cast<int>(offset)]; };
    mov(rax, field(offsetof(Args, codes)));
    mov(rdx, field(offsetof(Args, act)));
    mov(rcx, field(offsetof(Args, columns)));
    mov(r8d, 1);
    shlx(r8d, r8d, ecx);
    dec(r8d);
    kmovw(k1, r8d);
    vpxord(zmm17, zmm17, zmm17);
    mov(ecx, 4);
    Xbyak::Label loop;
    L(loop);
    vmovdqu32(zmm16, ptr[rax]);
    vpdpbusd(zmm17, zmm16, ptr_b[rdx]);
    add(rax, 64);
    add(rdx, 4);
    dec(ecx);
    jnz(loop);
    vcvtdq2ps(zmm17, zmm17);
    mov(rax, field(offsetof(Args, scale)));
    vmulps(zmm17, zmm17, ptr[rax]);
    mov(rax, field(offsetof(Args, out)));
    vmovups(ptr[rax] | k1, zmm17);
    ret();
  }
};

/// rdi: u8[32], rsi: i8[32], rdx: i32[8], accumulated.
class VnniKernel : public Xbyak::CodeGenerator {
 public:
  VnniKernel() : CodeGenerator(4096) {
    vmovdqu(ymm1, ptr[rdi]);
    vmovdqu(ymm2, ptr[rsi]);
    vmovdqu(ymm3, ptr[rdx]);
    vpdpbusd(ymm3, ymm1, ymm2, Xbyak::VexEncoding);
    vmovdqu(ptr[rdx], ymm3);
    vzeroupper();
    ret();
  }
};

TEST(Emulator, RunsAvx512VnniWithMasksAndBroadcasts) {
  if (!supported(Isa::avx512vnni)) emulator::install();
  std::array<uint8_t, 256> codes;
  std::iota(codes.begin(), codes.end(), uint8_t{0});
  std::array<int8_t, 16> act;
  for (int i = 0; i < 16; ++i) act[i] = static_cast<int8_t>(15 * i - 120);
  std::array<float, 16> scale, out;
  for (int i = 0; i < 16; ++i) scale[i] = 0.5f + static_cast<float>(i);
  DotKernel kernel;
  kernel.ready();
  for (uint64_t columns = 1; columns <= 16; ++columns) {
    out.fill(-1);
    const Args args{codes.data(), act.data(), scale.data(), out.data(), columns};
    kernel.getCode<void (*)(const Args*)>()(&args);
    for (int c = 0; c < 16; ++c) {
      int sum = 0;
      for (int step = 0; step < 4; ++step)
        for (int j = 0; j < 4; ++j) sum += codes[64 * step + 4 * c + j] * act[4 * step + j];
      EXPECT_EQ(out[c], static_cast<uint64_t>(c) < columns ? static_cast<float>(sum) * scale[c] : -1.0f) << c;
    }
  }
}

TEST(Emulator, RunsVexVnniAndReturnsThroughYmm) {
  if (!supported(Isa::avxvnni)) emulator::install();
  std::array<uint8_t, 32> u;
  std::array<int8_t, 32> s;
  std::array<int32_t, 8> sum, want;
  for (int i = 0; i < 32; ++i) {
    u[i] = static_cast<uint8_t>(255 - i);
    s[i] = static_cast<int8_t>(i % 2 ? -128 : 127);
  }
  for (int i = 0; i < 8; ++i) {
    sum[i] = want[i] = 1000 * i;
    for (int j = 0; j < 4; ++j) want[i] += u[4 * i + j] * s[4 * i + j];
  }
  VnniKernel kernel;
  kernel.ready();
  kernel.getCode<void (*)(const uint8_t*, const int8_t*, int32_t*)>()(u.data(), s.data(), sum.data());
  EXPECT_EQ(sum, want);
}

}  // namespace
}  // namespace nibble
