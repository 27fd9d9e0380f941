// SPDX-License-Identifier: Apache-2.0
#include "tensor/onednn/onednn.h"

#include <gtest/gtest.h>

#include <array>
#include <stdexcept>
#include <string>
#include <vector>

#include "tensor/kernel.h"
#include "tensor/parallel.h"
#include "tensor/plan.h"
#include "tests/support/compare.h"
#include "tests/support/guarded.h"
#include "tests/support/random.h"
#include "tests/support/reference.h"
#include "tests/support/test_tensor.h"

namespace nibble::test {

namespace {

const Kernel& kernel() {
  register_onednn_kernels();
  for (const Kernel& k : kernels_for("matmul")) {
    if (k.name == "matmul_onednn") return k;
  }
  throw std::runtime_error("matmul_onednn is not registered");
}

/// A Call with everything it points to.
struct TestCall {
  Node node;
  std::vector<TensorDesc> descs;
  std::vector<Shape> strides;
  std::vector<Tensor> constants;
  Call call;

  TestCall(const std::vector<Tensor>& in, const Attrs& attrs, int threads = 1) {
    node.op = &op("matmul");
    node.attrs = attrs;
    for (const Tensor& t : in) {
      descs.push_back(t.desc);
      strides.push_back(t.strides);
      constants.push_back({});
    }
    call = {.node = &node, .in = descs, .constants = constants, .strides = strides,
            .out = node.op->infer(descs, attrs), .threads = threads, .fixed_sum_order = false};
  }
};

Floats run(const std::vector<Tensor>& in, const Attrs& attrs, int threads) {
  const TestCall c(in, attrs, threads);
  const Bound bound = kernel().bind(c.call);
  EXPECT_NE(bound.detail.find("onednn"), std::string::npos);
  const TestTensor out(c.call.out);
  const Guarded scratch(bound.scratch_bytes, Flush::end, 64);
  ThreadPool pool(threads);
  pool.run([&](const Worker& worker) {
    KernelArgs args;
    args.in = in;
    args.out = out;
    args.attrs = &attrs;
    args.worker = worker;
    args.scratch = scratch.data();
    bound.run(bound.state.get(), args);
  });
  return out.floats();
}

std::string rejection(const std::vector<Tensor>& in, const Attrs& attrs = {}, bool fixed_sum_order = false) {
  TestCall c(in, attrs);
  c.call.fixed_sum_order = fixed_sum_order;
  const char* reason = kernel().rejects(c.call);
  return reason ? reason : "";
}

TestTensor zeros(const Shape& shape, DType dtype = DType::f32) { return TestTensor({shape, dtype, nullptr}); }

}  // namespace

TEST(Onednn, MatchesTheExactProductWithinTheF32Bound) {
  Random random(1);
  for (const auto& [m, n, k] :
       {std::array<int64_t, 3>{1, 5, 7}, {1, 100, 64}, {5, 33, 129}, {13, 48, 11}, {64, 17, 256}}) {
    for (bool bias : {false, true}) {
      const TestTensor x({m, k}, DType::f32, random.floats(m * k)), w({n, k}, DType::f32, random.floats(n * k));
      const TestTensor b({n}, DType::f32, random.floats(n));
      std::vector<Tensor> in = {x, w};
      Attrs attrs;
      if (bias) {
        in.push_back(b);
        attrs.set("bias", int64_t{1});
      }
      ASSERT_EQ(rejection(in, attrs), "");
      Doubles want = matmul(x.floats(), w.floats(), m, n, k);
      for (size_t i = 0; bias && i < want.size(); i++) want[i] += b.floats()[i % n];
      for (int threads : {1, 2}) {
        const std::string what = "onednn " + to_string(Shape{m, n, k}) + " threads " + std::to_string(threads);
        EXPECT_TRUE(close(run(in, attrs, threads), want, dot_bound(k + 1, 1, 1), what, 1));
      }
    }
  }
}

TEST(Onednn, RunsSixteenBitTypesWhereItSaysSo) {
  Random random(2);
  for (DType type : {DType::bf16, DType::f16}) {
    const TestTensor x({3, 40}, type, random.floats(120)), w({9, 40}, type, random.floats(360));
    const std::string reason = rejection({x, w});
    if (!reason.empty()) {
      EXPECT_EQ(reason, "oneDNN has no matmul of these types on this CPU") << name(type);
      continue;
    }
    EXPECT_TRUE(close(run({x, w}, {}, 1), matmul(x.floats(), w.floats(), 3, 9, 40), dot_bound(40, 1, 1),
                      std::string(name(type)), 2));
  }
}

TEST(Onednn, TakesRowsWithGaps) {
  Random random(3);
  const int64_t m = 6, k = 19, n = 21;
  const TestTensor wide({m, k + 5}, DType::f32, random.floats(m * (k + 5))),
      w({n, k}, DType::f32, random.floats(n * k));
  Tensor x = wide;
  x.desc.shape[1] = k;
  ASSERT_EQ(rejection({x, w}), "");
  Floats dense;
  for (double v : values(x)) dense.push_back(static_cast<float>(v));
  EXPECT_TRUE(close(run({x, w}, {}, 2), matmul(dense, w.floats(), m, n, k), dot_bound(k, 1, 1), "rows with gaps", 3));
}

TEST(Onednn, SaysWhyItCannot) {
  const TestTensor x = zeros({3, 32}), w = zeros({5, 32}), strided_w = w.strided(), residual = zeros({3, 5});
  EXPECT_EQ(rejection({x, w}), "");
  EXPECT_EQ(rejection({x, w}, {}, true), "sums depend on the number of rows");
  EXPECT_EQ(rejection({x, w, w}, {{"weights", int64_t{2}}}), "several weights side by side");
  EXPECT_EQ(rejection({x, w}, {{"activation", std::string("silu")}}), "an epilogue other than bias");
  EXPECT_EQ(rejection({x, w, residual}, {{"residual", int64_t{1}}}), "an epilogue other than bias");
  EXPECT_EQ(rejection({x, strided_w}), "elements of a row must stand side by side");
  EXPECT_EQ(rejection({zeros({0, 32}), w}), "an empty product");
  EXPECT_EQ(rejection({x, zeros({5, 32}, DType::f16)}), "oneDNN has no matmul of these types on this CPU");
}

TEST(Onednn, PlanTakesItOnlyWhenSumsMayDependOnRows) {
  if (!usable(Isa::avx2)) GTEST_SKIP() << "kernels are capped below avx2";
  register_onednn_kernels();
  const TestTensor w = zeros({48, 64}), x = zeros({8, 64});
  Graph g;
  g.output(g.add(op("matmul"), {g.input("x", x.tensor().desc), g.constant("w", w)}));
  const std::string fixed = Plan::compile(g, {.max_isa = Isa::avx2, .fixed_sum_order = true}).explain();
  EXPECT_NE(fixed.find("sums depend on the number of rows"), std::string::npos) << fixed;
  Plan plan = Plan::compile(g, {.max_isa = Isa::avx2, .fixed_sum_order = false});
  EXPECT_NE(plan.explain().find("onednn_f32_f32_f32"), std::string::npos) << plan.explain();
  ThreadPool pool(1);
  const TestTensor out = zeros({8, 48});
  const Tensor in = x, result = out;
  plan.run(pool, {&in, 1}, {&result, 1});
  EXPECT_EQ(out.floats(), Floats(8 * 48, 0.0f));
}

TEST(Onednn, CostGrowsWithTheWork) {
  const TestTensor x = zeros({8, 512}), small = zeros({64, 512}), large = zeros({2048, 512});
  EXPECT_LT(kernel().cost(TestCall({x, small}, {}).call), kernel().cost(TestCall({x, large}, {}).call));
  EXPECT_LT(kernel().cost(TestCall({x, large}, {}, 2).call), kernel().cost(TestCall({x, large}, {}).call));
}

}  // namespace nibble::test
