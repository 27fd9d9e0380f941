// SPDX-License-Identifier: Apache-2.0
#include "tensor/passes/passes.h"

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "quant/format.h"
#include "tensor/check.h"
#include "tensor/op.h"
#include "tensor/plan.h"
#include "tests/support/compare.h"
#include "tests/support/random.h"
#include "tests/support/test_tensor.h"

namespace nibble {
namespace {

using test::TestTensor;

/// A graph under construction whose constants live as long as it.
class Case {
 public:
  explicit Case(uint64_t seed) : random(seed) {}

  Value input(const Shape& shape, DType type = DType::f32) {
    inputs_.emplace_back(shape, type, random.floats(shape.elements()));
    return graph.input(message("x", inputs_.size()), {shape, type});
  }
  Value vector(int64_t n) {
    constants_.emplace_back(Shape{n}, DType::f32, random.floats(n));
    return graph.constant(message("b", constants_.size()), constants_.back());
  }
  /// `format` is a packed format's name, or empty for f32.
  Value weight(int64_t n, int64_t k, std::string_view format) {
    const std::vector<float> values = random.floats(n * k);
    if (format.empty()) {
      constants_.emplace_back(Shape{n, k}, DType::f32, values);
    } else {
      const QuantFormat& packed = quant::find_format(format);
      constants_.emplace_back(TensorDesc{{n, k}, DType::packed, &packed});
      quant::quantize_rows(packed, values.data(), n, k, 0, n, constants_.back().tensor().data);
    }
    return graph.constant(message("w", constants_.size()), constants_.back());
  }
  Value add(std::string_view name, std::initializer_list<Value> in, const Attrs& attrs = {}, std::string node = {}) {
    return graph.add(op(name), in, attrs, std::move(node));
  }
  Value linear(Value x, int64_t n, std::string_view format = "", std::string node = {}) {
    return add("matmul", {x, weight(n, graph.desc(x).shape[1], format)}, {}, std::move(node));
  }
  Value slice(Value x, int64_t begin, int64_t size) {
    return add("slice", {x}, {{"dim", 1}, {"begin", begin}, {"size", size}});
  }

  /// All outputs of `g`, a rewrite of this case's graph, by references.
  std::vector<float> run(const Graph& g) const {
    Plan plan = Plan::compile(g, {.max_isa = Isa::generic, .run_passes = false});
    ThreadPool pool(1);
    std::vector<Tensor> in(inputs_.begin(), inputs_.end());
    std::vector<TestTensor> results;
    std::vector<Tensor> out;
    for (Value v : g.outputs) {
      results.emplace_back(g.desc(v));
      out.push_back(results.back());
    }
    plan.run(pool, in, out);
    std::vector<float> all;
    for (const TestTensor& r : results) {
      for (float f : r.floats()) all.push_back(f);
    }
    return all;
  }

  Graph graph;
  test::Random random;

 private:
  std::deque<TestTensor> inputs_, constants_;
};

std::vector<std::string> ops_of(const Graph& g) {
  std::vector<std::string> names;
  for (const Node& n : g.nodes) names.emplace_back(n.op->name);
  return names;
}

using Names = std::vector<std::string>;
using Pass = Graph (*)(Graph);

/// The pass leaves these ops and the same bits.
Graph expect_rewrite(const Case& c, Pass pass, const Names& ops) {
  Graph after = pass(c.graph);
  EXPECT_EQ(ops_of(after), ops);
  EXPECT_TRUE(test::same_bits(c.run(after), c.run(c.graph), "after the pass", c.random.seed()));
  return after;
}

const char* const kinds[] = {"", "q4s_g32"};  // dense and quantised weights

TEST(FoldEpilogue, TakesBiasActivationAndResidualInOrder) {
  for (const char* kind : kinds) {
    for (const char* act : {"silu", "gelu", "gelu_tanh", "relu"}) {
      Case c(1);
      const Value x = c.input({3, 32}), r = c.input({3, 16});
      const Value y = c.add("add", {c.linear(x, 16, kind, "blk.0.up"), c.vector(16)});
      c.graph.output(c.add("add", {r, c.add(act, {y})}));
      const Graph after = expect_rewrite(c, passes::fold_epilogue, {"matmul"});
      EXPECT_EQ(after.nodes[0].name, "blk.0.up");
      EXPECT_EQ(after.nodes[0].attrs.s("activation"), act);
      EXPECT_EQ(after.nodes[0].attrs.i("bias"), 1);
      EXPECT_EQ(after.nodes[0].attrs.i("residual"), 1);
    }
  }
}

TEST(FoldEpilogue, ALaterMatmulTakesAnEarlierOnesResult) {
  Case c(2);
  const Value x = c.input({2, 8});
  const Value a = c.linear(x, 8), b = c.linear(x, 8);
  c.graph.output(c.add("add", {x, c.add("add", {b, a})}));
  const Graph after = expect_rewrite(c, passes::fold_epilogue, {"matmul", "matmul", "add"});
  EXPECT_EQ(after.nodes[1].attrs.i("residual"), 1);
}

TEST(FoldEpilogue, KeepsWhatDoesNotFit) {
  const std::function<void(Case&, Value)> cases[] = {
      [](Case& c, Value y) { c.graph.output(y), c.graph.output(c.add("silu", {y})); },
      [](Case& c, Value y) { c.graph.output(c.add("add", {c.add("silu", {y}), y})); },
      [](Case& c, Value y) { c.graph.output(c.add("mul", {y, y})); },
      [](Case& c, Value y) { c.graph.output(c.add("add", {y, c.input({16})})); }};  // a bias that isn't constant
  const Names want[] = {{"matmul", "silu"}, {"matmul", "silu", "add"}, {"matmul", "mul"}, {"matmul", "add"}};
  for (size_t i = 0; i < std::size(cases); ++i) {
    Case c(3);
    cases[i](c, c.linear(c.input({3, 8}), 16));
    expect_rewrite(c, passes::fold_epilogue, want[i]);
  }
  Case order(4);  // bias after the activation, activation after the residual
  const Value x = order.input({3, 8});
  order.graph.output(order.add("add", {order.add("relu", {order.linear(x, 8)}), order.vector(8)}));
  order.graph.output(order.add("relu", {order.add("add", {order.linear(x, 8), x})}));
  expect_rewrite(order, passes::fold_epilogue, {"matmul", "add", "matmul", "relu"});
}

TEST(FoldGate, JoinsAPairInEitherOrder) {
  for (const char* kind : kinds) {
    for (bool bias : {false, true}) {
      for (bool swapped : {false, true}) {
        Case c(5);
        const Value x = c.input({3, 32});
        Value gate = c.linear(x, 24, kind, "blk.1.gate"), up = c.linear(x, 24, kind, "blk.1.up");
        if (bias) gate = c.add("add", {gate, c.vector(24)}), up = c.add("add", {up, c.vector(24)});
        gate = c.add("silu", {gate});
        c.graph.output(swapped ? c.add("mul", {up, gate}) : c.add("mul", {gate, up}));
        const Graph after = expect_rewrite(
            c, [](Graph g) { return passes::fold_gate(passes::fold_epilogue(std::move(g))); }, {"matmul"});
        EXPECT_EQ(after.nodes[0].attrs.s("gate"), "silu");
        EXPECT_EQ(after.nodes[0].name, "blk.1.gate+up");
        EXPECT_EQ(after.owned.size(), bias ? 1u : 0u);
      }
    }
  }
}

TEST(FoldGate, CutsOneWeightInHalves) {
  for (const char* kind : kinds) {
    for (bool bias : {false, true}) {
      for (bool second : {false, true}) {
        Case c(6);
        const Value x = c.input({3, 32});
        Value both = c.linear(x, 64, kind);
        if (bias) both = c.add("add", {both, c.vector(64)});
        const Value gate = c.add("gelu_tanh", {c.slice(both, second ? 32 : 0, 32)});
        c.graph.output(c.add("mul", {gate, c.slice(both, second ? 0 : 32, 32)}));
        expect_rewrite(c, [](Graph g) { return passes::fold_gate(passes::fold_epilogue(std::move(g))); }, {"matmul"});
      }
    }
  }
}

TEST(FoldGate, KeepsWhatDoesNotFit) {
  {  // packed weights can't be cut inside a panel of 16 columns
    Case c(7);
    const Value both = c.linear(c.input({3, 32}), 48, "q4s_g32");
    c.graph.output(c.add("mul", {c.add("silu", {c.slice(both, 0, 24)}), c.slice(both, 24, 24)}));
    expect_rewrite(c, passes::fold_gate, {"matmul", "slice", "silu", "slice", "mul"});
  }
  {  // different x
    Case c(8);
    const Value gate = c.add("silu", {c.linear(c.input({3, 32}), 16)});
    c.graph.output(c.add("mul", {gate, c.linear(c.input({3, 32}), 16)}));
    expect_rewrite(c, [](Graph g) { return passes::fold_gate(passes::fold_epilogue(std::move(g))); },
                   {"matmul", "matmul", "mul"});
  }
  {  // the gate is read elsewhere too
    Case c(9);
    const Value x = c.input({3, 32});
    const Value gate = c.add("silu", {c.linear(x, 16)});
    c.graph.output(gate);
    c.graph.output(c.add("mul", {gate, c.linear(x, 16)}));
    expect_rewrite(c, [](Graph g) { return passes::fold_gate(passes::fold_epilogue(std::move(g))); },
                   {"matmul", "matmul", "mul"});
  }
}

TEST(JoinMatmuls, PutsSiblingsSideBySide) {
  for (const char* kind : kinds) {
    for (bool bias : {false, true}) {
      Case c(10);
      const Value x = c.input({3, 32});
      for (const auto& [name, n] : {std::pair{"blk.0.q", 24}, {"blk.0.k", 8}, {"blk.0.v", 5}}) {
        Value y = c.linear(x, n, kind, name);
        if (bias) y = c.add("add", {y, c.vector(n)});
        c.graph.output(c.add("softmax", {y}));
      }
      c.graph = passes::fold_epilogue(c.graph);
      const Graph after = expect_rewrite(c, passes::join_matmuls,
                                         {"matmul", "slice", "softmax", "slice", "softmax", "slice", "softmax"});
      EXPECT_EQ(after.nodes[0].name, "blk.0.q+k+v");
      EXPECT_EQ(after.nodes[0].attrs.i("weights"), 3);
    }
  }
}

TEST(JoinMatmuls, KeepsWhatDoesNotFit) {
  Case c(11);
  const Value x = c.input({3, 32});
  c.graph.output(c.add("softmax", {c.linear(x, 16)}));                  // dense
  c.graph.output(c.add("softmax", {c.linear(x, 16, "q4s_g32")}));       // another format
  c.graph.output(c.add("softmax", {c.linear(x, 16, "q8s_g32")}));
  c.graph.output(c.add("softmax", {c.linear(c.input({3, 32}), 16)}));   // another x
  c.graph.output(c.linear(x, 16));                                      // goes out as it is
  c.graph.output(c.add("reshape", {c.linear(x, 16)}, {{"rank", 1}, {"d0", 48}}));  // must be contiguous
  const Names before = ops_of(c.graph);
  expect_rewrite(c, passes::join_matmuls, before);
}

TEST(QuantizeActivations, SharesOneQuantisation) {
  Case c(12);
  const Value x = c.input({3, 64});
  c.graph.output(c.linear(x, 16, "q4s_g32"));
  c.graph.output(c.linear(x, 8, "q4s_g32"));
  c.graph.output(c.linear(x, 8, "q8s_g32"));   // needs other values
  c.graph.output(c.linear(x, 8, "f16"));       // packed but not quantised
  c.graph.output(c.linear(x, 8));
  c.graph.output(c.linear(c.input({3, 64}, DType::f16), 8, "q4s_g32"));
  const Graph after = passes::quantize_activations(c.graph);
  EXPECT_EQ(ops_of(after),
            (Names{"quantize", "matmul_q", "matmul_q", "quantize", "matmul_q", "matmul", "matmul", "matmul"}));
  EXPECT_EQ(after.nodes[1].in[0], after.nodes[2].in[0]);
  EXPECT_EQ(after.desc(after.nodes[0].out).format, &act_format({32, 8}));
  EXPECT_EQ(after.desc(after.nodes[3].out).format, &act_format({32, 128, 16}));
  EXPECT_EQ(c.run(after).size(), c.run(c.graph).size());
}

TEST(FuseNormQuantize, FusesASingleReader) {
  for (const char* norm : {"rms_norm", "layer_norm"}) {
    Case c(13);
    const Value x = c.input({3, 64});
    const Value y = c.add(norm, {x, c.vector(64)}, {{"eps", 1e-5}}, "blk.0.norm");
    c.graph.output(c.linear(y, 16, "q4s_g32"));
    c.graph.output(c.linear(y, 8, "q4s_g32"));
    c.graph = passes::quantize_activations(c.graph);
    const Graph after = expect_rewrite(c, passes::fuse_norm_quantize, {"norm_quantize", "matmul_q", "matmul_q"});
    EXPECT_EQ(after.nodes[0].attrs.s("norm"), norm);
    EXPECT_EQ(after.nodes[0].name, "blk.0.norm");
  }
}

TEST(FuseNormQuantize, KeepsANormWithOtherReaders) {
  Case c(14);
  const Value y = c.add("rms_norm", {c.input({3, 64})}, {{"eps", 1e-5}});
  c.graph.output(c.linear(y, 16, "q4s_g32"));
  c.graph.output(c.linear(y, 16, "q8s_g32"));
  c.graph = passes::quantize_activations(c.graph);
  expect_rewrite(c, passes::fuse_norm_quantize, {"rms_norm", "quantize", "matmul_q", "quantize", "matmul_q"});
}

TEST(Passes, DropDeadKeepsOutputs) {
  Case c(15);
  const Value x = c.input({3, 8});
  c.add("silu", {c.add("gelu", {x})});
  c.graph.output(c.add("relu", {x}));
  expect_rewrite(c, passes::drop_dead, {"relu"});
}

/// A decoder block without attention: what a model's graph looks like to the passes.
void block(Case& c, const char* kind) {
  const Value x = c.input({3, 64});
  Value y = c.add("rms_norm", {x, c.vector(64)}, {{"eps", 1e-5}}, "attn_norm");
  const Value q = c.linear(y, 64, kind, "q"), k = c.linear(y, 64, kind, "k");
  const Value mixed = c.add("mul", {c.add("softmax", {q}), c.add("softmax", {k})});
  const Value r = c.add("add", {x, c.linear(mixed, 64, kind, "o")});
  y = c.add("rms_norm", {r, c.vector(64)}, {{"eps", 1e-5}}, "ffn_norm");
  const Value gate = c.add("silu", {c.linear(y, 96, kind, "gate")});
  const Value gated = c.add("mul", {gate, c.linear(y, 96, kind, "up")});
  c.graph.output(c.add("add", {r, c.linear(gated, 64, kind, "down")}));
}

TEST(Passes, RewriteADecoderBlock) {
  Case c(16);
  block(c, "q4s_g32");
  const Graph after = passes::run_all(c.graph);
  EXPECT_EQ(ops_of(after),
            (Names{"norm_quantize", "matmul_q", "slice", "slice", "softmax", "softmax", "mul", "quantize", "matmul_q",
                   "norm_quantize", "matmul_q", "quantize", "matmul_q"}));
  // Against quantising alone: the other passes must not change a bit.
  EXPECT_TRUE(test::same_bits(c.run(after), c.run(passes::quantize_activations(c.graph)), "decoder block", 16));
}

TEST(Passes, KeepTheBitsOfDenseGraphs) {
  Case c(17);
  block(c, "");
  expect_rewrite(
      c, passes::run_all,
      {"rms_norm", "matmul", "slice", "slice", "softmax", "softmax", "mul", "matmul", "rms_norm", "matmul", "matmul"});
}

}  // namespace
}  // namespace nibble
