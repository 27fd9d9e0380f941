// SPDX-License-Identifier: Apache-2.0
// Corners of single ops that the list-driven cases don't reach: extremes, ties, NaN, missing pages, fused = unfused.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "tensor/op.h"
#include "tensor/panel.h"
#include "tests/support/compare.h"
#include "tests/support/op_cases.h"
#include "tests/support/random.h"

namespace nibble::test {

namespace {

constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
constexpr DType f32 = DType::f32;

std::vector<uint8_t> raw(const TestTensor& t) {
  const auto* p = reinterpret_cast<const uint8_t*>(t.tensor().data);
  return {p, p + bytes(t.tensor().desc)};
}

Floats run1(const char* op, const Floats& x, const Attrs& attrs = {}) {
  return run_reference(op, {TestTensor({1, static_cast<int64_t>(x.size())}, f32, x)}, attrs).floats();
}

}  // namespace

TEST(Softmax, SurvivesExtremes) {
  EXPECT_EQ(run1("softmax", {3e38f, 3e38f, -3e38f}), (Floats{0.5f, 0.5f, 0.0f}));
  EXPECT_EQ(run1("softmax", {-inf, 0, -inf, 0}), (Floats{0, 0.5f, 0, 0.5f}));
  EXPECT_EQ(run1("softmax", {-3e38f}), Floats{1});
  for (float y : run1("softmax", {-inf, -inf})) EXPECT_TRUE(std::isnan(y));
  for (float y : run1("softmax", {1, nan, 2})) EXPECT_TRUE(std::isnan(y));
}

TEST(Argmax, TiesGoToTheLowestIndexAndNanNeverWins) {
  auto argmax = [](const Floats& x) {
    return run_reference("argmax", {TestTensor({1, static_cast<int64_t>(x.size())}, f32, x)}).ints()[0];
  };
  EXPECT_EQ(argmax({1, 5, 5, 2}), 1);
  EXPECT_EQ(argmax({-0.0f, 0.0f}), 0);
  EXPECT_EQ(argmax({-inf, -inf}), 0);
  EXPECT_EQ(argmax({nan, -3, nan, 7, 7}), 3);
  EXPECT_EQ(argmax({nan, nan}), 0);
}

TEST(Activations, KeepSignsAndNan) {
  EXPECT_EQ(run1("relu", {-1, 0, 2}), (Floats{0, 0, 2}));
  for (const char* name : {"silu", "gelu", "gelu_tanh", "relu"}) {
    EXPECT_TRUE(std::isnan(run1(name, {nan})[0])) << name;
    EXPECT_EQ(run1(name, {100})[0], 100.0f) << name;
    EXPECT_NEAR(run1(name, {-100})[0], 0.0f, 1e-30) << name;
  }
}

TEST(RmsNorm, ZerosStayZerosAndLargeValuesStayFinite) {
  EXPECT_EQ(run1("rms_norm", {0, 0, 0}, {{"eps", 1e-5}}), (Floats{0, 0, 0}));
  EXPECT_TRUE(
      close(run1("rms_norm", {1e18f, -1e18f}, {{"eps", 1e-5}}), Floats{1, -1}, 4 * f32_epsilon, "rms_norm 1e18"));
}

TEST(LayerNorm, ConstantRowGivesTheBias) {
  const TestTensor x({1, 4}, f32, Floats{3, 3, 3, 3}), w({4}, f32, Floats{5, 6, 7, 8}), b({4}, f32, Floats{1, 2, 3, 4});
  EXPECT_EQ(run_reference("layer_norm", {x, w, b}, {{"eps", 1e-5}}).floats(), b.floats());
}

TEST(Norms, SumInTheDocumentedOrder) {
  Random random(3);
  const int64_t n = 37;
  const Floats x = random.floats(n, -3, 3), w = random.floats(n);
  float lane[16] = {};
  for (int64_t j = 0; j < n; j++) lane[j % 16] = std::fma(x[j], x[j], lane[j % 16]);
  float half[8], quarter[4];
  for (int i = 0; i < 8; i++) half[i] = lane[i] + lane[i + 8];
  for (int i = 0; i < 4; i++) quarter[i] = half[i] + half[i + 4];
  const float sum = (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
  const float r = 1.0f / std::sqrt(sum / 37.0f + 1e-5f);
  Floats want;
  for (int64_t j = 0; j < n; j++) want.push_back(x[j] * r * w[j]);
  const auto got =
      run_reference("rms_norm", {TestTensor({1, n}, f32, x), TestTensor({n}, f32, w)}, {{"eps", double{1e-5f}}});
  EXPECT_TRUE(same_bits(got.floats(), want, "rms_norm 37", 3));
}

TEST(NormQuantize, EqualsNormThenQuantize) {
  Random random(5);
  for (const char* norm : {"rms_norm", "layer_norm"}) {
    for (int64_t k : {16, 100, 128, 300}) {
      const TestTensor x({3, k}, f32, random.normals(3 * k)), w({k}, f32, random.floats(k)),
          b({k}, f32, random.floats(k));
      std::vector<Tensor> in = {x, w};
      if (norm[0] == 'l') in.push_back(b);
      const Attrs act = {{"group", int64_t{64}}, {"offset", int64_t{8}}, {"bits", int64_t{k % 3 ? 8 : 16}}};
      Attrs fused = act;
      fused.set("norm", std::string(norm));
      fused.set("eps", 1e-6);
      const TestTensor apart = run_reference("quantize", {run_reference(norm, in, {{"eps", 1e-6}})}, act);
      EXPECT_TRUE(same_bits(raw(run_reference("norm_quantize", in, fused)), raw(apart), norm));
    }
  }
}

TEST(MatmulEpilogue, FoldedEqualsSeparateOps) {
  Random random(7);
  const TestTensor x({5, 96}, f32, random.normals(5 * 96)), bias({9}, f32, random.normals(9)),
      residual({5, 9}, f32, random.normals(45));
  const RandomPanels w = random_panels({.group = 32, .bits = 5, .zero_point = ZeroPoint::minimum}, 9, 96, 8);
  const TestTensor act = run_reference("quantize", {x}, {{"group", int64_t{32}}, {"offset", int64_t{0}}});
  const Attrs attrs = {{"bias", int64_t{1}}, {"residual", int64_t{1}}, {"activation", std::string("silu")}};
  for (const auto& [name, in] : {std::pair{"matmul", &x}, {"matmul_q", &act}}) {
    const TestTensor folded = run_reference(name, {*in, w.tensor, bias, residual}, attrs);
    const TestTensor sums = run_reference(name, {*in, w.tensor});
    const TestTensor separate =
        run_reference("add", {run_reference("silu", {run_reference("add", {sums, bias})}), residual});
    EXPECT_TRUE(same_bits(folded.floats(), separate.floats(), name));
  }
}

TEST(MatmulQ, EveryLayoutMatchesTheExactProduct) {
  Random random(11);
  for (const QuantLayout& layout : sample_layouts()) {
    if (layout.bits == 0) continue;
    const int64_t m = 3, n = 21, k = layout.sub_groups ? 512 : layout.group == 0 ? 200 : 3 * 128;
    const RandomPanels w = random_panels(layout, n, k, random.bits());
    const bool wide = layout.bits > 6;  // their own error is small: int16 activations
    const Attrs needs = {{"bits", int64_t{wide ? 16 : 8}},
                         {"group", int64_t{layout.group ? layout.group : 128}},
                         {"offset", int64_t{layout.zero_point != ZeroPoint::symmetric ? 0
                                            : layout.codebook ? panel_codebook(layout.codebook).zero
                                                              : 1 << (layout.bits - 1)}}};
    const TestTensor act = run_reference("quantize", {TestTensor({m, k}, f32, random.normals(m * k))}, needs);
    const Doubles x = values(act);
    Doubles want, bound;
    for (int64_t i = 0; i < m; i++) {
      for (int64_t c = 0; c < n; c++) {
        double sum = 0, size = 0;
        for (int64_t j = 0; j < k; j++) {
          sum += x[i * k + j] * w.values[c * k + j];
          size += std::fabs(x[i * k + j]) * w.magnitudes[c * k + j];
        }
        want.push_back(sum);
        bound.push_back(f32_epsilon * static_cast<double>(2 * k / 16 + k / 32 + 4) * size);
      }
    }
    const Floats got = run_reference("matmul_q", {act, w.tensor}).floats();
    EXPECT_TRUE(close_each(got, want, [&](size_t i) { return bound[i]; }, to_string(layout)));
  }
}

TEST(MatmulQ, RowsDoNotDependOnTheirNumber) {
  Random random(13);
  const int64_t k = 256, n = 17, m = 40;
  const RandomPanels w = random_panels({.group = 32, .bits = 4}, n, k, 14);
  const Floats x = random.normals(m * k);
  const Attrs needs = {{"group", int64_t{32}}, {"offset", int64_t{8}}};
  const TestTensor all = run_reference("quantize", {TestTensor({m, k}, f32, x)}, needs);
  const Floats together = run_reference("matmul_q", {all, w.tensor}).floats();
  for (int64_t i : {0, 1, 31, 32, 39}) {
    const TestTensor row =
        run_reference("quantize", {TestTensor({1, k}, f32, Floats(x.begin() + i * k, x.begin() + (i + 1) * k))}, needs);
    const Floats want(together.begin() + i * n, together.begin() + (i + 1) * n);
    EXPECT_TRUE(same_bits(run_reference("matmul_q", {row, w.tensor}).floats(), want, "row " + std::to_string(i)));
  }
}

TEST(Attention, IgnoresWhatHasNoPageAndBadRows) {
  OpCase c = op_case("attention", f32, 5, 1, false);
  const Floats before = run_reference("attention", c.inputs(), c.attrs).floats();
  c.in[3].tensor().as<int32_t>()[0] = 1 << 20;  // a position behind the page table
  c.in[4].tensor().as<int32_t>()[1] = -1;       // no such sequence
  const Floats after = run_reference("attention", c.inputs(), c.attrs).floats();
  const size_t width = before.size() / 8;
  for (size_t i = 0; i < 2 * width; i++) EXPECT_EQ(after[i], 0.0f);
}

TEST(Attention, ChunksGiveTheBitsOfOnePass) {
  Random random(17);
  const int64_t length = 45, heads = 4, kv_heads = 2, d = 8;
  const Attrs attrs = {{"heads", heads}, {"kv_heads", kv_heads}, {"scale", 0.35}, {"window", int64_t{20}}};
  const Floats q = random.normals(length * heads * d), k = random.normals(length * kv_heads * d),
               v = random.normals(length * kv_heads * d);
  auto run = [&](int64_t chunk) {
    const TestTensor table({1, 2}, Ints{1, 0});
    const TestTensor k_pages({{2, kv_heads, d, 32}, DType::f16, nullptr}),
        v_pages({{2, kv_heads, 32, d}, DType::f16, nullptr});
    Floats all;
    for (int64_t begin = 0; begin < length; begin += chunk) {
      const int64_t m = std::min(chunk, length - begin);
      auto part = [&](const Floats& x, int64_t width) {
        return TestTensor({m, width}, f32, Floats(x.begin() + begin * width, x.begin() + (begin + m) * width));
      };
      Ints positions;
      for (int64_t i = 0; i < m; i++) positions.push_back(static_cast<int32_t>(begin + i));
      const TestTensor pq = part(q, heads * d), pk = part(k, kv_heads * d), pv = part(v, kv_heads * d);
      const TestTensor p({m}, positions), s({m}, Ints(m, 0));
      const Floats y = run_reference("attention", {pq, pk, pv, p, s, table, k_pages, v_pages}, attrs).floats();
      all.insert(all.end(), y.begin(), y.end());
    }
    return all;
  };
  const Floats whole = run(length);
  for (int64_t chunk : {1, 7, 32}) EXPECT_TRUE(same_bits(run(chunk), whole, "chunk " + std::to_string(chunk), 17));
}

TEST(Attention, I8PagesHoldCodesOfEachRowAndItsScale) {
  Random random(23);
  const int64_t length = 40, heads = 4, kv_heads = 2;
  const auto coded = [](Floats x, int64_t size) {
    for (size_t i = 0; i < x.size(); i += size) as_i8_page(x.data() + i, size);
    return x;
  };
  for (auto [d, dv] : {std::pair<int64_t, int64_t>{12, 5}, {7, 16}}) {
    const Floats q = random.normals(length * heads * d), k = random.normals(length * kv_heads * d),
                 v = random.normals(length * kv_heads * dv);
    Ints positions(length);
    for (int32_t i = 0; i < length; i++) positions[i] = i;
    const TestTensor k_pages({{2, kv_heads, d + d % 2 + 4, 32}, DType::i8, nullptr}),
        v_pages({{2, kv_heads, dv + 4, 32}, DType::i8, nullptr});
    const Attrs attrs = {{"heads", heads}, {"kv_heads", kv_heads}, {"scale", 0.4}};
    const Floats got =
        run_reference("attention",
                      {TestTensor({length, heads * d}, f32, q), TestTensor({length, kv_heads * d}, f32, k),
                       TestTensor({length, kv_heads * dv}, f32, v), TestTensor({length}, positions),
                       TestTensor({length}, Ints(length, 0)), TestTensor({1, 2}, Ints{1, 0}), k_pages, v_pages},
                      attrs)
            .floats();
    AttentionShape shape{length, heads, kv_heads, d, 0.4};
    shape.dv = dv;
    // Codes times scales are rounded to f32 by coded() only.
    EXPECT_TRUE(close(got, attention(q, coded(k, d), coded(v, dv), shape), 64 * f32_epsilon, "i8 pages"));
  }
}

TEST(Copy, ConvertsWithSaturation) {
  const TestTensor x({1, 6}, f32, Floats{0.5f, 1.5f, -200, 300, nan, -0.5f});
  auto got = [&](const char* dtype) { return values(run_reference("copy", {x}, {{"dtype", std::string(dtype)}})); };
  EXPECT_EQ(got("i8"), (Doubles{0, 2, -128, 127, 0, 0}));
  EXPECT_EQ(got("u8"), (Doubles{0, 2, 0, 255, 0, 0}));
  EXPECT_EQ(got("i32"), (Doubles{0, 2, -200, 300, 0, 0}));
}

TEST(Rope, PositionZeroIsTheIdentity) {
  Random random(19);
  const Floats x = random.normals(32);
  const TestTensor table =
      run_reference("rope_table", {TestTensor({1}, Ints{0}), TestTensor({8}, f32, random.floats(8))});
  for (const char* pairing : {"halves", "interleaved"}) {
    const Attrs attrs = {{"head_dim", int64_t{32}}, {"pairing", std::string(pairing)}};
    EXPECT_TRUE(same_bits(run_reference("rope", {TestTensor({1, 32}, f32, x), table}, attrs).floats(), x, pairing));
  }
}

}  // namespace nibble::test
