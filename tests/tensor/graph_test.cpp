// SPDX-License-Identifier: Apache-2.0
#include "tensor/graph.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tensor/check.h"
#include "tensor/op.h"

namespace nibble {
namespace {

std::string error_of(auto&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return {};
}

TEST(Attrs, ReturnWhatWasSet) {
  Attrs a{{"n", 3}, {"eps", 0.5}, {"pairing", "halves"}};
  EXPECT_EQ(a.i("n"), 3);
  EXPECT_EQ(a.f("eps"), 0.5);
  EXPECT_EQ(a.f("n"), 3.0) << "an integer will do for a number";
  EXPECT_EQ(a.s("pairing"), "halves");
  EXPECT_EQ(a.i("missing", 7), 7);
  EXPECT_EQ(a.f("missing", 0.25), 0.25);
  EXPECT_EQ(a.s("missing", "x"), "x");
  a.set("n", int64_t{4});
  EXPECT_EQ(a.i("n"), 4);
  EXPECT_EQ(a.items().size(), 3u);
  EXPECT_TRUE(a.has("eps"));
  EXPECT_FALSE(a.has("missing"));
  EXPECT_EQ(a, a);
  EXPECT_NE(a, Attrs());
}

TEST(Attrs, NameWhatIsMissingOrWrong) {
  const Attrs a{{"n", 3}, {"pairing", "halves"}};
  EXPECT_EQ(error_of([&] { a.i("eps"); }), "attribute eps is missing");
  EXPECT_EQ(error_of([&] { a.i("pairing"); }), "attribute pairing: expected an integer, found a string");
  EXPECT_EQ(error_of([&] { a.f("pairing", 1.0); }), "attribute pairing: expected a number, found a string");
  EXPECT_EQ(error_of([&] { a.s("n"); }), "attribute n: expected a string, found an integer");
}

TEST(Graph, InfersShapesAsNodesAreAdded) {
  Graph g;
  std::vector<float> weight(5 * 7);
  const Value x = g.input("x", {{3, 7}, DType::f32});
  const Value w = g.constant("w", Tensor({{5, 7}, DType::f32}, weight.data()));
  const Value y = g.add(op("matmul"), {x, w}, {}, "blk.0.q");
  g.output(y);
  EXPECT_EQ(g.desc(y), (TensorDesc{{3, 5}, DType::f32}));
  EXPECT_FALSE(g.is_constant(x));
  EXPECT_TRUE(g.is_constant(w));
  EXPECT_EQ(g.value_names, (std::vector<std::string>{"x", "w", ""}));
  EXPECT_EQ(g.nodes[0].out, y);
  EXPECT_EQ(g.add(op("silu"), {y}), (Value{3}));
  EXPECT_EQ(g.nodes[1].name, "silu") << "the op's name when none is given";
}

TEST(Graph, ErrorsNameTheNode) {
  Graph g;
  std::vector<float> weight(5 * 6);
  const Value x = g.input("x", {{3, 7}, DType::f32});
  const Value w = g.constant("w", Tensor({{5, 6}, DType::f32}, weight.data()));
  const std::string text = error_of([&] { g.add(op("matmul"), {x, w}, {}, "blk.0.q"); });
  for (const char* part : {"blk.0.q", "matmul", "(3, 7)", "(5, 6)"})
    EXPECT_NE(text.find(part), std::string::npos) << text;
  EXPECT_TRUE(g.nodes.empty());
  EXPECT_NE(error_of([&] { g.add(op("silu"), {Value{9}}, {}, "odd"); }).find("node odd (silu): input 0 is value 9"),
            std::string::npos);
  EXPECT_THROW(g.add(op("silu"), {Value{}}), Error);
  EXPECT_THROW(g.output(Value{-1}), Error);
  EXPECT_THROW(g.constant("c", Tensor({{1}, DType::f32}, nullptr)), Error);
  EXPECT_NE(error_of([&] { g.input("y", {{2, -3}, DType::f32}); }).find("input y"), std::string::npos);
}

TEST(Tensor, DescribesItself) {
  EXPECT_EQ(to_string(Shape{2, 3}), "(2, 3)");
  EXPECT_EQ(to_string(Shape{}), "()");
  EXPECT_EQ(to_string(TensorDesc{{4}, DType::i32}), "i32 (4)");
  EXPECT_EQ(to_string(TensorDesc{{4, 8}, DType::packed, &act_format({32, 8})}), "act_g32_z8 (4, 8)");
  EXPECT_EQ(contiguous_strides({2, 3, 4}), (Shape{12, 4, 1}));
}

TEST(Tensor, CountsBytes) {
  EXPECT_EQ(bytes({{3, 5}, DType::f32}), 60u);
  EXPECT_EQ(bytes({{3, 5}, DType::f16}), 30u);
  EXPECT_EQ(bytes({{}, DType::i32}), 4u) << "a scalar";
  EXPECT_EQ(bytes({{0, 5}, DType::i32}), 0u);
  EXPECT_EQ(bytes({{2, 32}, DType::packed, &act_format({32, 8})}), 192u)
      << "64 values, 2 scales and 2 sums, each aligned";
  EXPECT_THROW(bytes({{int64_t{1} << 40, int64_t{1} << 40}, DType::f32}), Error);
  EXPECT_THROW(bytes({{2, 3}, DType::packed}), Error) << "no format";
  EXPECT_THROW(bytes({{2}, DType::packed, &act_format({32, 8})}), Error) << "not a matrix";
}

TEST(Packed, ActivationFormatsAreOnePerNeed) {
  EXPECT_EQ(&act_format({32, 8}), &act_format({32, 8}));
  EXPECT_EQ(act_format({128, 0}).name, "act_g128_z0");
  EXPECT_EQ(act_format({32, 128, 16}).name, "act_g32_z128_i16");
  EXPECT_EQ(act_needs_of(act_format({16, 128, 16})), (ActNeeds{16, 128, 16}));
  EXPECT_TRUE(is_act_format(act_format({64, 1})));
  for (const ActNeeds& needs : {ActNeeds{8, 8}, {32, 3}, {32, 256}, {0, 0}, {32, 8, 4}}) {
    EXPECT_THROW(act_format(needs), Error) << needs.group << ", " << needs.offset << ", " << needs.bits;
  }
}

}  // namespace
}  // namespace nibble
