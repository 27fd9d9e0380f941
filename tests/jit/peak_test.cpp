// SPDX-License-Identifier: Apache-2.0
#include "jit/peak.h"

#include <gtest/gtest.h>

#include "tensor/check.h"

namespace nibble::jit {
namespace {

TEST(Peak, RefusesWhatNoKernelDoes) {
  EXPECT_THROW(measure_int8_peak(Isa::generic, 1), Error);
  EXPECT_THROW(measure_int8_mix_peak(Isa::generic, 1, 32), Error);
  EXPECT_THROW(measure_int8_mix_peak(Isa::amxint8, 1, 32), Error);
  if (supported(Isa::avx2)) {
    EXPECT_THROW(measure_int8_mix_peak(Isa::avx2, 1, 48), Error);
  }
}

}  // namespace
}  // namespace nibble::jit
