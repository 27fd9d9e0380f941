// SPDX-License-Identifier: Apache-2.0
#include "quant/activation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "tensor/check.h"

namespace nibble::quant {
namespace {

TEST(Activation, EveryWeightFormatHasItsActivations) {
  for (const QuantFormat* format : all_formats()) {
    if (format->layout.bits == 0) {
      EXPECT_THROW(act_needs(format->layout), Error) << format->name;
      continue;
    }
    const ActNeeds needs = act_needs(format->layout);
    EXPECT_TRUE(needs == act_needs_of(act_format(needs))) << format->name;
    EXPECT_EQ(act_format(needs).name, message("act_g", needs.group, "_z", needs.offset, needs.bits == 16 ? "_i16" : ""))
        << format->name;
  }
  EXPECT_TRUE(act_needs(find_format("q4s_g32").layout) == (ActNeeds{32, 8}));
  EXPECT_TRUE(act_needs(find_format("q8s_row").layout) == (ActNeeds{128, 128, 16}));
  EXPECT_TRUE(act_needs(find_format("q7s_g32").layout) == (ActNeeds{32, 64, 16}));
  EXPECT_TRUE(act_needs(find_format("q8z_g32").layout) == (ActNeeds{32, 0, 16}));
  EXPECT_TRUE(act_needs(find_format("q6s_g64").layout) == (ActNeeds{64, 32}));
  EXPECT_TRUE(act_needs(find_format("q4z_g32x8").layout) == (ActNeeds{32, 0}));
  EXPECT_TRUE(act_needs(find_format("nf4_g64").layout) == (ActNeeds{64, 128}));
  EXPECT_THROW(act_needs_of(find_format("q4s_g32")), Error);
}

TEST(Activation, RowsAreWithinHalfAStepAndSumsAreExact) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  for (const ActNeeds needs : {ActNeeds{16, 32}, ActNeeds{32, 8}, ActNeeds{32, 0}, ActNeeds{128, 128},
                               ActNeeds{16, 0, 16}, ActNeeds{128, 128, 16}}) {
    const int64_t m = 3, k = 336;
    const ActGeometry g = act_geometry(needs, m, k);
    std::vector<float> x(static_cast<size_t>(m * k));
    for (float& v : x) v = normal(random);
    std::vector<std::byte> out(g.bytes, std::byte{0x77});
    for (int64_t i = 0; i < m; ++i) quantize_act_row(needs, x.data() + i * k, m, k, i, out.data());
    for (int64_t i = 0; i < m; ++i) {
      std::vector<int> q;
      for (int64_t j = i * g.k_padded; j < (i + 1) * g.k_padded; ++j) {
        if (needs.bits == 16) q.push_back(reinterpret_cast<const int16_t*>(out.data())[j]);
        else q.push_back(reinterpret_cast<const int8_t*>(out.data())[j]);
      }
      for (int64_t j = 0; j < k; ++j) {
        float scale;
        std::memcpy(&scale, out.data() + g.scales_offset + 4 * (i * g.scales_per_row + j / std::max(needs.group, 32)),
                    4);
        // Half a step, and the roundings of scale, inverse and product: three of the largest value's 2^-24 at most.
        EXPECT_LE(std::fabs(static_cast<float>(q[static_cast<size_t>(j)]) * scale - x[static_cast<size_t>(i * k + j)]),
                  scale * (0.5f + static_cast<float>(needs.limit()) * 4 * 0x1p-24f));
      }
      for (int64_t j = k; j < g.k_padded; ++j) EXPECT_EQ(q[static_cast<size_t>(j)], 0);
      for (int64_t s = 0; s < g.sums_per_row; ++s) {
        int sum = 0;
        for (int64_t j = s * needs.group; j < std::min(k, (s + 1) * needs.group); ++j) sum += q[static_cast<size_t>(j)];
        int32_t stored;
        std::memcpy(&stored, out.data() + g.sums_offset + 4 * (i * g.sums_per_row + s), 4);
        if (needs.offset == 0) {
          EXPECT_EQ(std::bit_cast<float>(stored), static_cast<float>(sum));
        } else {
          EXPECT_EQ(stored, -needs.offset * sum);
        }
      }
    }
  }
}

}  // namespace
}  // namespace nibble::quant
