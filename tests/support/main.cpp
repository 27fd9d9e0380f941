// SPDX-License-Identifier: Apache-2.0
// main() of every test binary: says which instruction set is being tested.
#include <gtest/gtest.h>

#include <cstdio>

#include "tensor/cpu.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  std::printf("cpu: %s, kernels up to %s\n", nibble::cpu_name().c_str(), std::string(nibble::name(nibble::max_isa())).c_str());
  return RUN_ALL_TESTS();
}
