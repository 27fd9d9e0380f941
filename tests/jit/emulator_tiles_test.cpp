// SPDX-License-Identifier: Apache-2.0
// AMX instructions give the results of plain loops on any CPU, and their misuse is found.
#include <gtest/gtest.h>
#include <xbyak/xbyak.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <vector>

#include "tensor/cpu.h"
#include "tests/support/emulator.h"
#include "tests/support/guarded.h"
#include "tests/support/random.h"

namespace nibble {
namespace {

using Config = std::array<uint8_t, 64>;

/// Tile 0: sums (rows, columns), 1: first factor (rows, k bytes), 2: second factor (k / 4, columns of 4 bytes).
Config config(int rows, int columns, int k) {
  Config c{};
  c[0] = 1;
  c[16] = static_cast<uint8_t>(columns * 4), c[18] = static_cast<uint8_t>(k), c[20] = static_cast<uint8_t>(columns * 4);
  c[48] = c[49] = static_cast<uint8_t>(rows), c[50] = static_cast<uint8_t>(k / 4);
  return c;
}

struct Args {
  const Config* config;
  const void *a, *b;
  void* sums;
  int64_t a_stride, b_stride, sums_stride;
  Config* seen;  ///< the configuration as the CPU has it
};

enum class Signs { both, first, second, none };

class TileKernel : public Xbyak::CodeGenerator {
 public:
  explicit TileKernel(Signs signs) : CodeGenerator(4096) {
    const auto load = [&](const Xbyak::Reg64& to, size_t offset) { mov(to, ptr[rdi + offset]); };
    load(rax, offsetof(Args, config));
    ldtilecfg(ptr[rax]);
    load(rax, offsetof(Args, seen));
    sttilecfg(ptr[rax]);
    load(rax, offsetof(Args, sums));
    load(rcx, offsetof(Args, sums_stride));
    tilezero(tmm0);
    tileloadd(tmm0, ptr[rax + rcx]);
    load(rdx, offsetof(Args, a));
    load(rsi, offsetof(Args, a_stride));
    tileloaddt1(tmm1, ptr[rdx + rsi]);
    load(rdx, offsetof(Args, b));
    load(rsi, offsetof(Args, b_stride));
    tileloadd(tmm2, ptr[rdx + rsi]);
    switch (signs) {
      case Signs::both: tdpbssd(tmm0, tmm1, tmm2); break;
      case Signs::first: tdpbsud(tmm0, tmm1, tmm2); break;
      case Signs::second: tdpbusd(tmm0, tmm1, tmm2); break;
      case Signs::none: tdpbuud(tmm0, tmm1, tmm2); break;
    }
    tilestored(ptr[rax + rcx], tmm0);
    tilerelease();
    ret();
  }
};

int value(uint8_t byte, bool is_signed) { return is_signed ? static_cast<int8_t>(byte) : byte; }

class EmulatedTiles : public testing::Test {
 protected:
  void SetUp() override {
    if (!supported(Isa::amxint8)) emulator::install();
  }
};

TEST_F(EmulatedTiles, MultiplyLikePlainLoops) {
  test::Random random(5);
  for (const auto [rows, columns, k] : {std::array{16, 16, 64}, {12, 16, 32}, {1, 1, 4}, {7, 5, 16}, {11, 16, 60}}) {
    for (const Signs signs : {Signs::both, Signs::first, Signs::second, Signs::none}) {
      const bool a_signed = signs == Signs::both || signs == Signs::first;
      const bool b_signed = signs == Signs::both || signs == Signs::second;
      const int a_stride = k + 12, b_stride = columns * 4 + 64, sums_stride = columns * 4;
      const test::Guarded a(static_cast<size_t>((rows - 1) * a_stride + k));
      const test::Guarded b(static_cast<size_t>((k / 4 - 1) * b_stride + columns * 4));
      const test::Guarded sums(static_cast<size_t>(rows * sums_stride));
      for (const test::Guarded* memory : {&a, &b, &sums}) {
        for (size_t i = 0; i < memory->size(); ++i) memory->data()[i] = static_cast<std::byte>(random.bits());
      }
      std::vector<uint32_t> want(static_cast<size_t>(rows * columns));
      std::memcpy(want.data(), sums.data(), sums.size());
      const auto* first = reinterpret_cast<const uint8_t*>(a.data());
      const auto* second = reinterpret_cast<const uint8_t*>(b.data());
      for (int m = 0; m < rows; ++m) {
        for (int n = 0; n < columns; ++n) {
          for (int i = 0; i < k; ++i) {
            want[static_cast<size_t>(m * columns + n)] += static_cast<uint32_t>(
                value(first[m * a_stride + i], a_signed) * value(second[i / 4 * b_stride + 4 * n + i % 4], b_signed));
          }
        }
      }
      const Config c = config(rows, columns, k);
      Config seen;
      seen.fill(0xff);
      TileKernel kernel(signs);
      kernel.ready();
      const Args args{&c, a.data(), b.data(), sums.data(), a_stride, b_stride, sums_stride, &seen};
      kernel.getCode<void (*)(const Args*)>()(&args);
      EXPECT_EQ(seen, c);
      EXPECT_EQ(std::memcmp(sums.data(), want.data(), sums.size()), 0)
          << rows << " x " << columns << " x " << k << ", signs " << static_cast<int>(signs);
      EXPECT_EQ(emulator::threads_with_tiles(), 0);
    }
  }
}

/// Runs a few instructions behind ldtilecfg of `c`; an empty one leaves the tiles as they are.
class Misuse : public Xbyak::CodeGenerator {
 public:
  template <class Body>
  Misuse(const Config& c, Body body) : CodeGenerator(4096) {
    Xbyak::Label data;
    if (c != Config{}) ldtilecfg(ptr[rip + data]);
    body(*this);
    tilerelease();
    ret();
    align(64);
    L(data);
    for (const uint8_t b : c) db(b);
  }
};
template <class Body>
void run(const Config& c, Body body) {
  emulator::install();
  Misuse code(c, body);
  code.ready();
  code.getCode<void (*)()>()();
}
Config changed(size_t at, uint8_t to) {
  Config c = config(8, 16, 64);
  c[at] = to;
  return c;
}

TEST_F(EmulatedTiles, RefuseWhatACpuRefuses) {
  if (supported(Isa::amxint8)) GTEST_SKIP() << "this CPU has AMX: nothing is emulated";
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  using Code = Xbyak::CodeGenerator;
  const Xbyak::Tmm sums(0), a(1), b(2), absent(3);
  const auto nothing = [](Code&) {};
  const auto dot = [&](Code& g) { g.tdpbssd(sums, a, b); };
  EXPECT_DEATH(run({}, [&](Code& g) { g.tilezero(sums); }), "not configured");
  EXPECT_DEATH(run(changed(0, 2), nothing), "palette");
  EXPECT_DEATH(run(changed(1, 1), nothing), "start row");
  EXPECT_DEATH(run(changed(60, 1), nothing), "reserved");
  EXPECT_DEATH(run(changed(48, 17), nothing), "16 rows");
  EXPECT_DEATH(run(changed(16, 68), nothing), "64 bytes");
  EXPECT_DEATH(run(changed(48, 0), nothing), "no rows");
  EXPECT_DEATH(run(config(8, 16, 64), [&](Code& g) { g.tilezero(absent); }), "leaves out");
  EXPECT_DEATH(run(changed(48, 7), dot), "rows of the sums");
  EXPECT_DEATH(run(changed(16, 60), dot), "columns of the sums");
  EXPECT_DEATH(run(changed(50, 15), dot), "k of the first");
  EXPECT_DEATH(run(changed(18, 62), dot), "whole dwords");
  EXPECT_DEATH(run(config(8, 16, 64), [&](Code& g) { g.tdpbssd(sums, a, a); }), "undecodable");
  run(config(8, 16, 64), dot);
}

}  // namespace
}  // namespace nibble
