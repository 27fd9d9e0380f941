// SPDX-License-Identifier: Apache-2.0
// Shape inference refuses what doesn't fit, with a message that shows it.
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "tensor/check.h"
#include "tensor/op.h"
#include "tests/support/op_cases.h"
#include "tests/support/panels.h"

namespace nibble::test {

namespace {

constexpr DType f32 = DType::f32, f16 = DType::f16, i32 = DType::i32, packed = DType::packed;
constexpr int64_t one = 1;

struct Bad {
  const char* op;
  std::vector<TensorDesc> in;
  Attrs attrs;
  const char* says;  ///< part of the message
};

QuantFormat weight_format(std::string_view name, QuantLayout layout) {
  return {.name = name, .layout = layout, .bytes = nullptr, .dequantize = nullptr};
}
const QuantFormat q4 = weight_format("q4", {.group = 32, .bits = 4});
const QuantFormat q5 = weight_format("q5", {.group = 32, .bits = 5});
const QuantFormat floats16 = weight_format("f16p", {.bits = 0, .scale = DType::f16});

std::vector<TensorDesc> attention_inputs() {
  return {{{4, 24}, f32, nullptr},       {{4, 12}, f32, nullptr},      {{4, 12}, f32, nullptr},
          {{4}, i32, nullptr},           {{4}, i32, nullptr},          {{2, 3}, i32, nullptr},
          {{6, 2, 6, 32}, f16, nullptr}, {{6, 2, 32, 6}, f16, nullptr}};
}
Bad bad_attention(int input, TensorDesc desc, const char* says) {
  Bad bad = {"attention", attention_inputs(), {{"heads", int64_t{4}}, {"kv_heads", int64_t{2}}, {"scale", 1.0}}, says};
  bad.in[input] = desc;
  return bad;
}

Bad with_optional(const char* name, TensorDesc desc, const char* says) {
  Bad bad = bad_attention(0, {{4, 24}, f32, nullptr}, says);
  bad.in.push_back(desc);
  bad.attrs.set(name, int64_t{1});
  return bad;
}

std::vector<Bad> bad_calls() {
  const TensorDesc x = {{3, 64}, f32, nullptr}, act = {{3, 64}, packed, &act_format({32, 8})};
  const Attrs experts = {{"experts", int64_t{4}}, {"n", int64_t{2}}, {"chosen", int64_t{1}}};
  return {
      {"embedding", {{{3}, f32, nullptr}, {{9, 8}, f32, nullptr}}, {}, "ids: expected i32, found f32 (3)"},
      {"embedding", {{{3}, i32, nullptr}, {{9}, f32, nullptr}}, {}, "table: expected 2 dimensions, found f32 (9)"},
      {"matmul", {x, {{7, 63}, f32, nullptr}}, {}, "f32 (7, 63) differ in k"},
      {"matmul", {x, {{7, 64}, i32, nullptr}}, {}, "weight: expected f32, f16 or bf16, found i32 (7, 64)"},
      {"matmul", {x}, {}, "expected 2 inputs"},
      {"matmul",
       {x, {{7, 64}, f32, nullptr}, {{8}, f32, nullptr}},
       {{"bias", one}},
       "bias: expected (7), found f32 (8)"},
      {"matmul",
       {x, {{7, 64}, f32, nullptr}, {{3, 8}, f32, nullptr}},
       {{"residual", one}},
       "residual: expected (3, 7), found f32 (3, 8)"},
      {"matmul", {x, {{7, 64}, f32, nullptr}}, {{"gate", std::string("silu")}}, "gate needs 2 weights"},
      {"matmul",
       {x, {{7, 64}, f32, nullptr}, {{8, 64}, f32, nullptr}},
       {{"gate", std::string("silu")}, {"weights", int64_t{2}}},
       "differ in shape"},
      {"matmul", {x, {{7, 64}, f32, nullptr}}, {{"activation", std::string("swish")}}, "unknown activation swish"},
      {"matmul", {x, {{7, 64}, f32, nullptr}}, {{"weights", int64_t{0}}}, "weights 0"},
      {"matmul_q", {x, {{7, 64}, packed, &q4}}, {}, "x: expected packed, found f32 (3, 64)"},
      {"matmul_q", {act, {{7, 64}, f32, nullptr}}, {}, "weight: expected packed, found f32 (7, 64)"},
      {"matmul_q", {act, {{7, 64}, packed, &q5}}, {}, "q5 (7, 64) needs act_g32_z16"},
      {"matmul_q", {act, {{7, 64}, packed, &floats16}}, {}, "weight: expected quantised weights, found f16p (7, 64)"},
      {"quantize",
       {{{3, 64}, f16, nullptr}},
       {{"group", int64_t{32}}, {"offset", int64_t{8}}},
       "x: expected f32, found f16"},
      {"quantize", {x}, {{"group", int64_t{48}}, {"offset", int64_t{8}}}, "48"},
      {"quantize", {x}, {{"group", int64_t{32}}, {"offset", int64_t{7}}}, "7"},
      {"rms_norm", {x, {{63}, f32, nullptr}}, {{"eps", 1e-5}}, "weight: expected (64), found f32 (63)"},
      {"rms_norm", {x}, {}, "eps"},
      {"rms_norm", {x, {{64}, f32, nullptr}, {{64}, f32, nullptr}}, {{"eps", 1e-5}}, "expected 1 to 2 inputs, found 3"},
      {"layer_norm",
       {x, {{64}, f32, nullptr}, {{1}, f32, nullptr}},
       {{"eps", 1e-5}},
       "bias: expected (64), found f32 (1)"},
      {"norm_quantize", {x}, {{"norm", std::string("batch")}, {"eps", 1.0}}, "unknown norm batch"},
      {"add", {x, {{32}, f32, nullptr}}, {}, "b f32 (32): expected a's shape or a suffix of it, a is f32 (3, 64)"},
      {"add", {x, {{3, 1}, f32, nullptr}}, {}, "suffix"},
      {"mul", {x, {{2, 3, 64}, f32, nullptr}}, {}, "suffix"},
      {"tanh", {{{3}, i32, nullptr}}, {}, "x: expected f32, f16 or bf16, found i32 (3)"},
      {"clamp", {x}, {{"limit", 0.0}}, "limit 0, expected a positive number"},
      {"clamped_swiglu",
       {x, {{3, 63}, f32, nullptr}},
       {{"limit", 7.0}, {"alpha", 1.7}},
       "up: expected (3, 64), found f32 (3, 63)"},
      {"choose_experts", {x}, {{"count", int64_t{65}}}, "count 65: expected 1 to 64"},
      {"expert_weights", {x, {{4, 2}, i32, nullptr}}, {}, "chosen i32 (4, 2) differ in rows"},
      {"group_experts", {{{3, 2}, i32, nullptr}}, {{"experts", int64_t{0}}}, "experts 0: expected at least 1"},
      {"combine_experts",
       {x, {{20}, i32, nullptr}, {{2, 2}, f32, nullptr}},
       {},
       "y f32 (3, 64): expected a row for each of 4 weights"},
      {"matmul_experts",
       {x, {{8, 64}, f32, nullptr}, {{11}, i32, nullptr}},
       experts,
       "weight: expected packed, found f32 (8, 64)"},
      {"matmul_experts_q",
       {x, {{8, 64}, f32, nullptr}, {{11}, i32, nullptr}},
       experts,
       "weight: expected packed, found f32 (8, 64)"},
      {"silu", {{{3}, i32, nullptr}}, {}, "x: expected f32, f16 or bf16, found i32 (3)"},
      {"gelu", {x, x}, {}, "expected 1 inputs, found 2"},
      {"gelu_tanh", {{{3}, i32, nullptr}}, {}, "i32"},
      {"relu", {{{3}, i32, nullptr}}, {}, "i32"},
      {"softmax", {{{3}, i32, nullptr}}, {}, "i32"},
      {"rope_table", {{{3}, f32, nullptr}, {{4}, f32, nullptr}}, {}, "positions: expected i32"},
      {"rope",
       {x, {{3, 34}, f32, nullptr}},
       {{"head_dim", int64_t{32}}},
       "table f32 (3, 34): expected an even width up to head_dim 32"},
      {"rope",
       {x, {{3, 16}, f32, nullptr}},
       {{"head_dim", int64_t{32}}, {"begin", int64_t{17}}},
       "begin 17, expected 0 to 16"},
      {"rope", {x, {{4, 32}, f32, nullptr}}, {{"head_dim", int64_t{32}}}, "differ in rows"},
      {"rope", {x, {{3, 32}, f32, nullptr}}, {{"head_dim", int64_t{48}}}, "multiple of head_dim 48"},
      {"rope",
       {x, {{3, 32}, f32, nullptr}},
       {{"head_dim", int64_t{32}}, {"pairing", std::string("odd")}},
       "unknown pairing odd"},
      bad_attention(2, {{4, 11}, f32, nullptr}, "v f32 (4, 11): expected a width that is a multiple of kv_heads 2"),
      bad_attention(2, {{4, 16}, f32, nullptr}, "v_pages: expected (6, 2, 32, 8)"),
      bad_attention(6, {{6, 2, 6, 32}, i32, nullptr},
                    "k_pages: expected f32, f16, bf16 or i8, found i32 (6, 2, 6, 32)"),
      bad_attention(6, {{6, 2, 6, 32}, DType::bf16, nullptr}, "v_pages: expected bf16, found f16 (6, 2, 32, 6)"),
      with_optional("slopes", {{3}, f32, nullptr}, "slopes: expected (4), found f32 (3)"),
      with_optional("sinks", {{4}, i32, nullptr}, "sinks: expected f32, found i32 (4)"),
      with_optional("ends", {{5}, i32, nullptr}, "ends: expected (4), found i32 (5)"),
      bad_attention(1, {{4, 24}, f32, nullptr}, "k: expected (4, 12), found f32 (4, 24)"),
      bad_attention(3, {{5}, i32, nullptr}, "positions: expected (4), found i32 (5)"),
      bad_attention(6, {{6, 2, 6, 16}, f16, nullptr}, "k_pages: expected (6, 2, 6, 32), found f16 (6, 2, 6, 16)"),
      bad_attention(7, {{7, 2, 32, 6}, f16, nullptr}, "v_pages: expected (6, 2, 32, 6)"),
      bad_attention(0, {{4, 23}, f32, nullptr}, "multiple of heads 4"),
      {"reshape", {x}, {{"rank", int64_t{2}}, {"d0", int64_t{5}}, {"d1", int64_t{-1}}}, "(3, 64) does not fit (5, 38)"},
      {"reshape", {x}, {{"rank", int64_t{2}}, {"d0", int64_t{-1}}, {"d1", int64_t{-1}}}, "d1 = -1"},
      {"reshape", {act}, {{"rank", one}, {"d0", int64_t{-1}}}, "unpacked"},
      {"slice", {x}, {{"dim", one}, {"begin", int64_t{60}}, {"size", int64_t{5}}}, "slice of 5 from 60 of dimension 1"},
      {"slice", {x}, {{"dim", int64_t{2}}, {"begin", one}, {"size", one}}, "dim 2 of shape (3, 64)"},
      {"permute", {x}, {{"p0", one}, {"p1", one}}, "p1 = 1 of x f32 (3, 64): expected every dimension once"},
      {"copy", {act}, {}, "unpacked"},
      {"copy", {x}, {{"dtype", std::string("f8")}}, "unknown dtype f8"},
      {"concat", {x, {{3, 63}, f32, nullptr}}, {{"dim", int64_t{0}}}, "input 1 f32 (3, 63) does not fit f32 (3, 64)"},
      {"concat", {x, {{3, 64}, f16, nullptr}}, {{"dim", int64_t{0}}}, "f16"},
      {"rows", {x, {{2}, f32, nullptr}}, {}, "index: expected i32, found f32 (2)"},
      {"columns", {x, {{2}, f32, nullptr}}, {}, "index: expected i32, found f32 (2)"},
      {"argmax", {{{3, 0}, f32, nullptr}}, {}, "last dimension"},
  };
}

}  // namespace

TEST(OpShapes, MessagesShowWhatDoesNotFit) {
  for (const Bad& bad : bad_calls()) {
    try {
      op(bad.op).infer(bad.in, bad.attrs);
      ADD_FAILURE() << bad.op << ": accepted, expected an Error with \"" << bad.says << '"';
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(bad.says), std::string::npos)
          << bad.op << ": got \"" << e.what() << "\", want \"" << bad.says << '"';
    }
  }
}

TEST(OpShapes, EveryOpHasARefusedCall) {
  std::set<std::string_view> refused;
  for (const Bad& bad : bad_calls()) refused.insert(bad.op);
  for (const OpDef* op : all_ops()) EXPECT_TRUE(refused.contains(op->name)) << op->name;
}

TEST(OpShapes, GraphErrorsNameTheNode) {
  Graph g;
  const Value x = g.input("x", {{3, 64}, f32, nullptr}), w = g.input("w", {{7, 63}, f32, nullptr});
  try {
    g.add(op("matmul"), {x, w}, {}, "blk.0.attn_q");
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    const std::string text = e.what();
    for (const char* part : {"blk.0.attn_q", "matmul", "f32 (3, 64)", "f32 (7, 63)"}) {
      EXPECT_NE(text.find(part), std::string::npos) << text;
    }
  }
}

TEST(OpShapes, EmptyBatchesAreFine) {
  for (const char* name : {"silu", "softmax"}) {
    EXPECT_EQ(op(name).infer(std::vector<TensorDesc>{{{0, 8}, f32, nullptr}}, {}).shape, (Shape{0, 8})) << name;
    run_reference(name, {TestTensor(TensorDesc{{0, 8}, f32, nullptr})});
  }
}

TEST(OpShapes, ReshapeOfStridedIsRefused) {
  const TestTensor x = TestTensor(TensorDesc{{4, 6}, f32, nullptr}).strided();
  EXPECT_THROW(op("reshape").view(x, {{"rank", one}, {"d0", int64_t{-1}}}), Error);
}

}  // namespace nibble::test
