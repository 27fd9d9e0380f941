// SPDX-License-Identifier: Apache-2.0
// Every microkernel of gemm_coded_keys, bit for bit against a chain of fma over the panel's weights, on memory that
// ends at a guard; every code of every book is met.
#include "jit/gemm_coded.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "tensor/check.h"
#include "tests/support/compare.h"
#include "tests/support/emulator.h"
#include "tests/support/guarded.h"
#include "tests/support/random.h"

namespace nibble {

namespace {

struct Panels {
  QuantLayout layout;
  PanelGeometry geometry;
  test::Guarded memory;

  Panels(const QuantLayout& l, int64_t panels, int64_t k, test::Random& random)
      : layout(l), geometry(panel_geometry(l, 16 * panels, k)), memory(geometry.bytes(), test::Flush::end, 64) {
    const float unit = float_book(l.codebook)->unit;
    for (int64_t p = 0; p < panels; ++p) {
      std::byte* panel = memory.data() + static_cast<size_t>(p) * geometry.panel_bytes;
      for (size_t i = 0; i < geometry.scales_offset; ++i) panel[i] = static_cast<std::byte>(random.bits());
      for (int64_t i = 0; i < geometry.groups * 16; ++i) {
        const float scale = random.uniform(-0.02f, 0.02f) * unit;
        std::memcpy(panel + geometry.scales_offset + static_cast<size_t>(i) * 4, &scale, 4);
      }
    }
  }
  float weight(int64_t k, int64_t column) const {
    return panel_weight(layout, geometry, memory.data() + static_cast<size_t>(column / 16) * geometry.panel_bytes, k,
                        static_cast<int>(column % 16));
  }
};

class GemmCoded : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (GetParam() > max_isa()) GTEST_SKIP() << "needs " << name(GetParam());
    if (!supported(GetParam())) emulator::install();
  }
};

QuantLayout layout_of(const jit::GemmCodedKey& key, uint16_t group) {
  return {.group = group,
          .bits = static_cast<uint8_t>(float_book(key.book)->bits),
          .scale = DType::f32,
          .codebook = key.book,
          .product = key.product};
}

TEST_P(GemmCoded, EveryKernelIsAChainOfFma) {
  // the emulator is slow
  const int64_t groups = supported(GetParam()) ? 2 : 1, group = 32, k = groups * group;
  for (const jit::GemmCodedKey& key : jit::gemm_coded_keys(GetParam())) {
    test::Random random(key.book);
    const Panels panels(layout_of(key, 32), key.panels, k, random);
    const int64_t rows = key.rows, columns = 16 * key.panels;
    test::Guarded a(static_cast<size_t>(std::max<int64_t>(rows, 1) * k) * 4),
        c(static_cast<size_t>(rows ? rows * columns : k * 16) * 4);
    for (int64_t i = 0; i < rows * k; ++i) a.as<float>()[i] = random.uniform();
    std::vector<float> want(c.size() / 4);
    for (size_t i = 0; i < want.size(); ++i) c.as<float>()[i] = want[i] = random.uniform();
    for (int64_t i = 0; rows == 0 && i < k * 16; ++i) want[static_cast<size_t>(i)] = panels.weight(i / 16, i % 16);
    for (int64_t i = 0; i < rows * columns; ++i) {
      for (int64_t j = 0; j < k; ++j)
        want[static_cast<size_t>(i)] =
            std::fma(a.as<float>()[i / columns * k + j], panels.weight(j, i % columns), want[static_cast<size_t>(i)]);
    }
    jit::gemm_coded(key)(jit::GemmCodedArgs{.a = a.as<float>(),
                                            .a_stride = k * 4,
                                            .codes = panels.memory.data(),
                                            .scales = panels.memory.data() + panels.geometry.scales_offset,
                                            .panel = static_cast<int64_t>(panels.geometry.panel_bytes),
                                            .c = c.as<float>(),
                                            .c_stride = columns * 4,
                                            .groups = groups,
                                            .lines = group / (panels.layout.bits == 4 ? 8 : 4),
                                            .accumulate = 1});
    EXPECT_TRUE(test::same_bits(std::vector<float>(c.as<float>(), c.as<float>() + want.size()), want, name(key),
                                random.seed()));
  }
}

TEST_P(GemmCoded, StartsAtZeroAndEndsInsideAGroup) {
  test::Random random(1);
  constexpr int64_t k = 160, n = 7;
  const QuantLayout layout{.group = 0, .bits = 8, .scale = DType::f32, .codebook = books::e4m3};
  const Panels panels(layout, n, k, random);
  const jit::GemmCoded gemm(GetParam(), layout);
  const auto a = random.floats(k);
  std::vector<float> got(static_cast<size_t>(16 * n), 1.0f), want(got.size());
  for (size_t c = 0; c < want.size(); ++c) {
    for (int64_t j = 0; j < k; ++j)
      want[c] = std::fma(a[static_cast<size_t>(j)], panels.weight(j, static_cast<int64_t>(c)), want[c]);
  }
  const auto range = [&](int64_t begin, int64_t depth) {
    return jit::GemmCoded::Range{panels.memory.data(), panels.geometry, n, begin, depth};
  };
  gemm.run(range(0, k), a.data(), k * 4, 1, got.data(), 64 * n);
  EXPECT_TRUE(test::same_bits(got, want, "at once", random.seed()));
  gemm.run(range(0, 128), a.data(), k * 4, 1, got.data(), 64 * n);
  gemm.run(range(128, 32), a.data() + 128, k * 4, 1, got.data(), 64 * n);
  EXPECT_TRUE(test::same_bits(got, want, "cut", random.seed()));
}

TEST(FloatBooks, ProductsRoundToBf16AsNearestEven) {
  test::Random random(2);
  for (int i = 0; i < 3000000; ++i) {
    const auto bits = static_cast<uint32_t>(random.bits());
    // ties and carries more often than by chance
    uint32_t number = (bits & 0x807fffffu) | (60u + static_cast<uint32_t>(i) % 120u) << 23;
    if (i % 3 == 0) number = (number & 0xffff0000u) | 0x8000u;
    if (i % 5 == 0) number |= 0x7fff00u;
    const float x = std::bit_cast<float>(number);
    ASSERT_EQ(rounded_product(DType::bf16, x), bf16_to_f32(f32_to_bf16(x))) << number;
  }
}

TEST(FloatBooks, BytesAreTheOcpFloats) {
  const FloatBook& e4m3 = *float_book(books::e4m3);
  const FloatBook& e5m2 = *float_book(books::e5m2);
  for (unsigned code = 0; code < 256; ++code) {
    const float sign = code & 0x80 ? -1.0f : 1.0f;
    const auto value = [&](int mantissa, int bias) {
      const int exponent = static_cast<int>(code & 0x7f) >> mantissa,
                fraction = static_cast<int>(code) & ((1 << mantissa) - 1);
      return sign * std::ldexp(static_cast<float>(exponent ? fraction + (1 << mantissa) : fraction),
                               std::max(exponent, 1) - bias - mantissa);
    };
    if ((code & 0x7f) != 0x7f) {
      EXPECT_EQ(e4m3.value(code) * e4m3.unit, value(3, 7)) << code;
    }
    if ((code & 0x7f) < 0x7c) {
      EXPECT_EQ(e5m2.value(code) * e5m2.unit, value(2, 15)) << code;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, GemmCoded, testing::Values(Isa::avx2, Isa::avx512vnni),
                         [](const auto& isa) { return std::string(name(isa.param)); });

}  // namespace

}  // namespace nibble
