// SPDX-License-Identifier: Apache-2.0
#include "tensor/panel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "tensor/check.h"
#include "tests/support/compare.h"
#include "tests/support/op_cases.h"
#include "tests/support/panels.h"
#include "tests/support/random.h"

namespace nibble::test {

TEST(Panel, DecodesWhatThePictureSays) {
  for (const QuantLayout& layout : sample_layouts()) {
    const int64_t k = layout.bits == 0 ? 37 : layout.sub_groups ? 256 : layout.group ? 3 * layout.group : 200;
    const RandomPanels w = random_panels(layout, 35, k, 1);
    std::vector<double> bound = w.magnitudes;  // scale and weight round once each
    for (double& b : bound) b *= 2 * f32_epsilon;
    EXPECT_TRUE(close_each(values(w.tensor), w.values, [&](size_t i) { return bound[i]; }, to_string(layout), 1));
  }
}

TEST(Panel, GeometryOfQ4) {
  const PanelGeometry g = panel_geometry({.group = 32, .bits = 4, .zero_point = ZeroPoint::minimum}, 17, 96);
  EXPECT_EQ(g.panels, 2);
  EXPECT_EQ(g.k_blocks, 3);
  EXPECT_EQ(g.groups, 3);
  EXPECT_EQ(g.code_block_bytes, 256u);
  EXPECT_EQ(g.scales_offset, 768u);
  EXPECT_EQ(g.scale_group_bytes, 64u);
  EXPECT_EQ(g.panel_bytes, 960u);
}

TEST(Panel, WholeRowScaleIsStoredPerActGroup) {
  const PanelGeometry g = panel_geometry({.group = 0, .bits = 8}, 16, 300);
  EXPECT_EQ(g.group, 128);
  EXPECT_EQ(g.groups, 3);
  EXPECT_EQ(g.panel_bytes, 10u * 512 + 128);  // 96 bytes of scales, rounded up
}

TEST(Panel, RefusesWhatDoesNotFit) {
  EXPECT_THROW(panel_geometry({.group = 32, .bits = 4}, 16, 48), Error);
  EXPECT_THROW(panel_geometry({.group = 32, .bits = 4, .sub_groups = 8}, 16, 128), Error);
  EXPECT_THROW(panel_geometry({.group = 24, .bits = 4}, 16, 48), Error);
  EXPECT_THROW(panel_geometry({.group = 32, .bits = 9}, 16, 64), Error);
  EXPECT_THROW(panel_geometry({.group = 32, .bits = 5, .codebook = 1}, 16, 64), Error);
  EXPECT_THROW(panel_geometry({.group = 32, .bits = 4}, -1, 64), Error);
  EXPECT_THROW(panel_geometry({.group = 32, .bits = 4, .codebook = 100}, 16, 64), Error);
  EXPECT_THROW(panel_codebook(0), Error);
  EXPECT_THROW(panel_codebook(100), Error);
}

TEST(QuantizeActRow, FollowsTheArithmeticStepByStep) {
  Random random(2);
  const int64_t k = 300;
  for (const ActNeeds& needs :
       {ActNeeds{16, 0}, {32, 8}, {64, 16}, {128, 128}, {16, 0, 16}, {32, 128, 16}, {128, 64, 16}}) {
    const int group = needs.group, offset = needs.offset;
    const float limit = needs.bits == 16 ? 32767 : 127;
    const Floats x = random.normals(k);
    const ActRegions g = act_regions(needs, 1, k);
    std::vector<std::byte> out(g.bytes, std::byte{0x55});
    quantize_act_row(needs, x.data(), 1, k, 0, out.data());
    std::vector<int> q;
    for (int64_t j = 0; j < g.k_padded; j++) {
      if (needs.bits == 16) q.push_back(reinterpret_cast<const int16_t*>(out.data())[j]);
      else q.push_back(reinterpret_cast<const int8_t*>(out.data())[j]);
    }
    const auto* scales = reinterpret_cast<const float*>(out.data() + g.scales_offset);
    const auto* sums = reinterpret_cast<const int32_t*>(out.data() + g.sums_offset);
    for (int64_t j = 0; j < g.k_padded; j++) {
      if (j >= k) {
        EXPECT_EQ(q[j], 0) << "padding " << j;
        continue;
      }
      const int64_t size = std::max(group, 32), first = j / size * size;
      float max = 0;
      for (int64_t e = first; e < std::min(first + size, k); e++) max = std::fmax(max, std::fabs(x[e]));
      const float inverse = limit / max;
      EXPECT_EQ(scales[j / size], max / limit);
      EXPECT_EQ(q[j], static_cast<int>(std::lrint(x[j] * inverse))) << j;
    }
    for (int64_t s = 0; s < (k + group - 1) / group; s++) {
      int sum = 0;
      for (int64_t j = s * group; j < std::min<int64_t>(k, (s + 1) * group); j++) sum += q[j];
      EXPECT_EQ(sums[s], offset ? -offset * sum : std::bit_cast<int32_t>(static_cast<float>(sum))) << s;
    }
  }
}

TEST(QuantizeActRow, SurvivesZerosExtremesAndNan) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (float value : {0.0f, 1e-45f, 3e38f, inf, nan}) {
    Floats x(128, 0.0f);
    x[3] = value;
    x[4] = -value;
    std::vector<std::byte> out(act_regions({32, 8}, 1, 128).bytes);
    quantize_act_row({32, 8}, x.data(), 1, 128, 0, out.data());
    const auto* q = reinterpret_cast<const int8_t*>(out.data());
    for (int j = 0; j < 128; j++) EXPECT_GE(q[j], -127) << value;
    if (value == 3e38f) {
      EXPECT_EQ(q[3], 127);
      EXPECT_EQ(q[4], -127);
    }
    if (value == 0) {
      EXPECT_EQ(reinterpret_cast<const float*>(out.data() + act_regions({32, 8}, 1, 128).scales_offset)[0], 0.0f);
    }
  }
}

TEST(QuantizeActRow, TiesGoToEven) {
  Floats x(128, 0.0f);
  x[0] = 127;  // scale 1
  x[1] = 0.5f;
  x[2] = 1.5f;
  x[3] = -2.5f;
  std::vector<std::byte> out(act_regions({32, 8}, 1, 128).bytes);
  quantize_act_row({32, 8}, x.data(), 1, 128, 0, out.data());
  const auto* q = reinterpret_cast<const int8_t*>(out.data());
  EXPECT_EQ(q[0], 127);
  EXPECT_EQ(q[1], 0);
  EXPECT_EQ(q[2], 2);
  EXPECT_EQ(q[3], -2);
}

}  // namespace nibble::test
