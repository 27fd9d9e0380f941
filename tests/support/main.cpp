// SPDX-License-Identifier: Apache-2.0
// main() of every test binary: says which instruction set is being tested, and how.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "tensor/cpu.h"
#include "tests/support/emulator.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const nibble::Isa isa = nibble::max_isa();
  const bool native = nibble::supported(isa);
  if (!native) nibble::emulator::install();
  std::printf("cpu: %s; kernels up to %s%s\n", nibble::cpu_name().c_str(), std::string(nibble::name(isa)).c_str(),
              native ? "" : ", emulated");
  const int result = RUN_ALL_TESTS();
  if (!native) std::printf("emulated instructions: %lld\n", nibble::emulator::executed());
  return result;
}
