// SPDX-License-Identifier: Apache-2.0
// The elementwise and row kernels against the references of their ops, on strided inputs that end at a guard page.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "jit/jit.h"
#include "quant/format.h"
#include "tests/jit/kernel_runner.h"
#include "tests/support/compare.h"
#include "tests/support/guarded.h"
#include "tests/support/random.h"
#include "tests/support/test_tensor.h"

namespace nibble {

namespace {

class Elementwise : public testing::Test {
 protected:
  void SetUp() override {
    jit::register_kernels();
    if (max_isa() < Isa::avx2) GTEST_SKIP() << "needs avx2";
  }

  /// f32 rows with three elements between them, the last one flush against a guard page.
  Tensor rows(int64_t m, int64_t n, float low = -4, float high = 4) {
    memory_.emplace_back(static_cast<size_t>(m * (n + 3) - 3) * 4);
    for (size_t i = 0; i < memory_.back().size() / 4; ++i) memory_.back().as<float>()[i] = random_.uniform(low, high);
    Tensor t({Shape{m, n}, DType::f32}, memory_.back().data());
    t.strides = Shape{n + 3, 1};
    return t;
  }
  Tensor vector(int64_t n) {
    Tensor t = rows(1, n);
    t.desc.shape = Shape{n};
    t.strides = Shape{1};
    return t;
  }
  Tensor ints(const std::vector<int32_t>& values) {
    memory_.emplace_back(values.size() * 4);
    std::memcpy(memory_.back().data(), values.data(), values.size() * 4);
    return Tensor({Shape{static_cast<int64_t>(values.size())}, DType::i32}, memory_.back().data());
  }

  /// Bytes of the fast result, for 1 to 3 threads all the same.
  std::vector<std::byte> fast(const std::string& op, const std::vector<Tensor>& in, const Attrs& attrs,
                              const TensorDesc& desc) {
    std::vector<std::byte> first;
    for (int threads = 1; threads <= 3; ++threads) {
      test::Guarded y(bytes(desc), test::Flush::end, desc.dtype == DType::packed ? 64 : 4);
      std::memset(y.data(), 0, y.size());
      const Tensor out(desc, y.data());
      ThreadPool pool(threads);
      test::KernelRunner runner(op, op + "_avx2", in, desc, attrs, threads);
      runner.run(pool, in, out);
      const std::vector<std::byte> result(y.data(), y.data() + y.size());
      if (threads == 1) first = result;
      EXPECT_EQ(result, first) << op << " with " << threads << " threads";
    }
    return first;
  }
  void expect_equal(const std::string& op, const std::vector<Tensor>& in, const Attrs& attrs = {}) {
    const test::TestTensor want = test::run_reference(op, in, attrs);
    const auto got = fast(op, in, attrs, want.tensor().desc);
    size_t first = 0;
    while (first < got.size() && got[first] == want.tensor().data[first]) ++first;
    EXPECT_EQ(first, got.size()) << op << " " << to_string(in[0].desc) << ": first differing byte";
  }
  /// |error| <= relative * |want| + absolute
  void expect_close(const std::string& op, const std::vector<Tensor>& in, double relative, double absolute,
                    const Attrs& attrs = {}) {
    const test::TestTensor want = test::run_reference(op, in, attrs);
    const auto raw = fast(op, in, attrs, want.tensor().desc);
    std::vector<float> got(raw.size() / 4);
    std::memcpy(got.data(), raw.data(), raw.size());
    const auto values = want.floats();
    EXPECT_TRUE(test::close_each(got, values, [&](size_t i) { return relative * std::fabs(values[i]) + absolute; },
                                 op + " " + to_string(in[0].desc), random_.seed()));
  }

  test::Random random_{11};
  std::vector<test::Guarded> memory_;
};

TEST_F(Elementwise, RoutingGivesTheBitsOfItsReferences) {
  for (int64_t m : {1, 9, 70}) {
    memory_.clear();
    memory_.reserve(8);
    const Tensor logits = rows(m, 24);
    const Attrs choice{{"count", 3}, {"score", "sigmoid"}, {"groups", 4}, {"kept_groups", 2}, {"group_best", 2}};
    expect_equal("choose_experts", {logits}, choice);
    const test::TestTensor chosen = test::run_reference("choose_experts", {logits}, choice);
    expect_equal("expert_weights", {logits, chosen}, {{"normalize", 1}});
    const test::TestTensor weights = test::run_reference("expert_weights", {logits, chosen});
    expect_equal("group_experts", {chosen}, {{"experts", 24}});
    const test::TestTensor groups = test::run_reference("group_experts", {chosen}, {{"experts", 24}});
    for (int64_t n : {1, 20, 300}) expect_equal("combine_experts", {rows(3 * m, n), groups, weights});
    const Tensor gate = rows(m, 100), up = rows(m, 100);
    expect_close("clamped_swiglu", {gate, up}, 1e-6, 1e-7, {{"limit", 2.5}, {"alpha", 1.702}});
  }
}

TEST_F(Elementwise, NormsAndQuantizeGiveTheBitsOfTheirReferences) {
  for (int64_t n : {1, 5, 8, 16, 31, 64, 128, 131, 200, 4096}) {
    for (int64_t m : {1, 5}) {
      memory_.clear();
      memory_.reserve(8);
      const Tensor x = rows(m, n), weight = vector(n), bias = vector(n);
      const Attrs eps{{"eps", 1e-5}};
      expect_equal("rms_norm", {x}, eps);
      expect_equal("rms_norm", {x, weight}, eps);
      expect_equal("layer_norm", {x}, eps);
      expect_equal("layer_norm", {x, weight}, eps);
      expect_equal("layer_norm", {x, weight, bias}, eps);
      for (int64_t group : {16, 32, 64, 128}) {
        for (int64_t offset : {0, 8, 128}) {
          expect_equal("quantize", {x}, {{"group", group}, {"offset", offset}});
          expect_equal("quantize", {x}, {{"group", group}, {"offset", offset}, {"bits", 16}});
          if (n > 200) continue;
          Attrs attrs{{"eps", 1e-5}, {"norm", "rms_norm"}, {"group", group}, {"offset", offset}};
          expect_equal("norm_quantize", {x, weight}, attrs);
          attrs.set("norm", "layer_norm");
          expect_equal("norm_quantize", {x, weight, bias}, attrs);
          attrs.set("bits", int64_t{16});
          expect_equal("norm_quantize", {x, weight, bias}, attrs);
        }
      }
    }
  }
}

TEST_F(Elementwise, QuantizeSurvivesExtremes) {
  const Tensor x = rows(4, 300);
  for (int64_t j = 0; j < 300; ++j) {
    x.as<float>()[j] = 0;
    x.as<float>()[303 + j] = j % 2 ? 3e38f : -3e38f;
    x.as<float>()[606 + j] = j == 7 ? 1.0f : 1e-30f;
  }
  for (int64_t bits : {8, 16}) {
    expect_equal("quantize", {x}, {{"group", int64_t{32}}, {"offset", int64_t{8}}, {"bits", bits}});
  }
}

TEST_F(Elementwise, AddAndMulAreExact) {
  for (int64_t n : {1, 7, 64, 5000}) {
    memory_.clear();
    memory_.reserve(8);
    const Tensor a = rows(3, n), b = rows(3, n), c = vector(n);
    for (const char* op : {"add", "mul"}) {
      expect_equal(op, {a, b});
      expect_equal(op, {a, c});
    }
  }
}

TEST_F(Elementwise, ActivationsAreWithinAFewUlp) {
  for (auto [low, high] : {std::pair{-5.0f, 5.0f}, {-0.1f, 0.1f}, {-80.0f, 80.0f}}) {
    memory_.clear();
    memory_.reserve(4);
    const Tensor x = rows(3, 3001, low, high);
    // Where 1 + erf or 1 + tanh cancels, the error is that of the 1: half an ulp of x.
    expect_close("silu", {x}, 8 * test::f32_epsilon, 1e-37);
    for (const char* op : {"gelu", "gelu_tanh"})
      expect_close(op, {x}, 8 * test::f32_epsilon, 4 * test::f32_epsilon * std::min(6.0f, high));
    expect_equal("relu", {x});
    expect_close("tanh", {x}, 8 * test::f32_epsilon, 1e-37);
    expect_equal("clamp", {x}, {{"limit", 0.75}});
  }
}

TEST_F(Elementwise, SoftmaxSumsToOne) {
  for (int64_t n : {1, 9, 1000}) {
    memory_.clear();
    memory_.reserve(4);
    const Tensor x = rows(5, n, -20, 20);
    if (n > 1) x.as<float>()[1] = -std::numeric_limits<float>::infinity();
    // The scaled difference is rounded twice: up to 2 * 40 ulp of its size.
    expect_close("softmax", {x}, test::f32_epsilon * (100 + static_cast<double>(n)), 1e-37, {{"scale", 0.7}});
  }
}

TEST_F(Elementwise, RopeRotatesPairs) {
  for (const char* pairing : {"halves", "interleaved"}) {
    for (auto [head_dim, rotated] : {std::pair<int64_t, int64_t>{64, 64}, {80, 32}, {10, 6}, {128, 128}}) {
      memory_.clear();
      memory_.reserve(8);
      const Tensor positions = ints({0, 1, 17, 100000, 5}), inv_freq = vector(rotated / 2);
      const Tensor x = rows(5, 12 * head_dim);
      expect_equal("rope_table", {positions, inv_freq}, {{"attention_factor", 1.25}});
      const test::TestTensor table = test::run_reference("rope_table", {positions, inv_freq});
      // Two products of up to 4, one rounded.
      for (int64_t begin : {int64_t{0}, (head_dim - rotated) / 2, head_dim - rotated}) {
        expect_close("rope", {x, table}, 0, 4 * 3 * test::f32_epsilon,
                     {{"head_dim", head_dim}, {"pairing", pairing}, {"begin", begin}});
      }
    }
  }
}

TEST_F(Elementwise, PicksRows) {
  memory_.reserve(16);
  const Tensor x = rows(6, 2000), index = ints({5, 0, 6, -1, 3});
  expect_equal("rows", {x, index});
  expect_equal("columns", {x, index});
  expect_equal("copy", {x});
  const QuantFormat& format = quant::find_format("q4s_g32");
  memory_.emplace_back(format.bytes(format, 40, 64), test::Flush::end, 64);
  quant::quantize_rows(format, random_.floats(40 * 64).data(), 40, 64, 0, 40, memory_.back().data());
  const Tensor table({Shape{40, 64}, DType::packed, &format}, memory_.back().data());
  expect_equal("embedding", {ints({39, 0, 40, -1, 3}), table});
}

TEST_F(Elementwise, PutsTogether) {
  for (int64_t n : {1, 40, 600}) {
    memory_.clear();
    memory_.reserve(4);
    const Tensor a = rows(6, n), b = rows(6, 8), c = rows(5, n);
    expect_equal("concat", {a, b, a}, {{"dim", -1}});
    expect_equal("concat", {c, a}, {{"dim", 0}});
    // three rows of two heads, their heads outermost
    const auto by_head = [](Tensor t) {
      t.desc.shape = Shape{2, 3, t.dim(1)};
      t.strides = Shape{t.strides[0], 2 * t.strides[0], 1};
      return t;
    };
    expect_equal("copy", {by_head(a)});
    expect_equal("concat", {by_head(a), by_head(b)}, {{"dim", 2}});
    expect_equal("concat", {by_head(a), by_head(a)}, {{"dim", 1}});
  }
}

TEST_F(Elementwise, PicksColumns) {
  for (const int64_t count : {3, 40, 2001}) {
    memory_.clear();
    memory_.reserve(4);
    std::vector<int32_t> index;
    for (int64_t i = 0; i < count; ++i) index.push_back(static_cast<int32_t>(random_.integer(-1, 2000)));
    expect_equal("columns", {rows(5, 2000), ints(index)});
  }
}

TEST_F(Elementwise, ArgmaxTakesTheLowestIndex) {
  for (int64_t n : {1, 7, 33, 5000}) {
    memory_.clear();
    memory_.reserve(4);
    const Tensor x = rows(5, n);
    const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
    float* data = x.as<float>();
    data[n - 1] = data[n / 2] = 9;                       // a tie
    for (int64_t j = 0; j < n; ++j) data[(n + 3) + j] = nan;
    for (int64_t j = 0; j < n; ++j) data[2 * (n + 3) + j] = j % 2 ? -infinity : nan;
    data[3 * (n + 3)] = nan;
    expect_equal("argmax", {x});
  }
}

}  // namespace

}  // namespace nibble
