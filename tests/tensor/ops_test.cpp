// SPDX-License-Identifier: Apache-2.0
// Every op's reference against independent loops: types, odd sizes, variants, strided inputs and results.
#include <gtest/gtest.h>

#include <string>

#include "tensor/check.h"
#include "tensor/op.h"
#include "tests/support/compare.h"
#include "tests/support/op_cases.h"

namespace nibble::test {

class Ops : public testing::TestWithParam<const OpDef*> {};

TEST_P(Ops, MatchesIndependentLoops) {
  const OpDef& op = *GetParam();
  ASSERT_TRUE(has_op_cases(op.name)) << "no cases for " << op.name << " in tests/support/op_cases.cpp";
  for (DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    for (int64_t size : {5, 7, 11, 13}) {
      for (int variant = 0; variant < op_variants; ++variant) {
        for (bool strided : {false, true}) {
          const OpCase c = op_case(op.name, dtype, size, variant, strided);
          const TestTensor got = run_reference(op.name, c.inputs(), c.attrs);
          ASSERT_TRUE(close_each(values(got), c.want, [&](size_t i) { return c.bound[i]; }, c.name, c.seed));
        }
      }
    }
  }
}

TEST_P(Ops, WritesStridedResults) {
  const OpDef& op = *GetParam();
  for (int variant = 0; variant < op_variants; ++variant) {
    const OpCase c = op_case(op.name, DType::f32, 7, variant, true);
    const TestTensor contiguous = run_reference(op.name, c.inputs(), c.attrs);
    if (contiguous.tensor().desc.dtype == DType::packed) continue;
    const TestTensor out = TestTensor(contiguous.tensor().desc).strided();
    run_reference_into(op.name, c.inputs(), out, c.attrs);
    EXPECT_TRUE(same_bits(values(out), values(contiguous), c.name, c.seed));
  }
}

TEST_P(Ops, ViewsAreTheReference) {
  const OpDef& op = *GetParam();
  if (!op.view) return;
  for (int variant = 0; variant < op_variants; ++variant) {
    const OpCase c = op_case(op.name, DType::f16, 7, variant, true);
    const Tensor view = op.view(c.in[0], c.attrs);
    const TestTensor copied = run_reference(op.name, c.inputs(), c.attrs);
    EXPECT_EQ(view.desc, copied.tensor().desc) << c.name;
    EXPECT_TRUE(same_bits(values(view), values(copied), c.name, c.seed));
  }
}

INSTANTIATE_TEST_SUITE_P(All, Ops, testing::ValuesIn(all_ops().begin(), all_ops().end()),
                         [](const auto& test) { return std::string(test.param->name); });

TEST(OpList, NamesAreUniqueAndFound) {
  for (const OpDef* a : all_ops()) {
    EXPECT_EQ(&op(a->name), a);
    EXPECT_TRUE(a->infer && a->reference) << a->name;
  }
}

TEST(OpList, UnknownNameListsTheKnown) {
  try {
    op("nonsense");
    FAIL() << "expected an Error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("nonsense"), std::string::npos);
    EXPECT_NE(std::string(e.what()).find("rms_norm"), std::string::npos);
  }
}

}  // namespace nibble::test
