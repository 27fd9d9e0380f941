// SPDX-License-Identifier: Apache-2.0
// Builds one case of op_cases.h. Internal to its files.
#pragma once

#include <cmath>
#include <utility>

#include "tests/support/compare.h"
#include "tests/support/op_cases.h"
#include "tests/support/random.h"

namespace nibble::test {

struct Maker {
  DType dtype;
  int64_t size;
  int variant;
  bool strided;
  Random random;
  OpCase result;

  Floats add(const Shape& shape, DType type, const Floats& values) {
    TestTensor t(shape, type, values);
    Floats kept = t.floats();
    result.in.push_back(strided ? t.strided() : std::move(t));
    return kept;
  }
  Floats floats(const Shape& shape) { return add(shape, dtype, random.floats(shape.elements(), -2, 2)); }
  Floats f32(const Shape& shape) { return add(shape, DType::f32, random.floats(shape.elements(), -2, 2)); }
  void ints(const Shape& shape, const Ints& values) {
    TestTensor t(shape, values);
    result.in.push_back(strided ? t.strided() : std::move(t));
  }
  /// One rounding to f32 after up to `roundings` relative errors of that size.
  void want(Doubles values, double roundings) {
    result.want = std::move(values);
    const double slack = roundings * f32_epsilon * max_abs(result.want) + 1e-38;
    result.bound.assign(result.want.size(), slack);
  }
};

// In attention_cases.cpp.
void attention_case(Maker& mk);
// In expert_cases.cpp.
void choose_experts_case(Maker& mk);
void expert_weights_case(Maker& mk);
void group_experts_case(Maker& mk);
void matmul_experts_case(Maker& mk, bool quantised);
void combine_experts_case(Maker& mk);
void clamped_swiglu_case(Maker& mk);

}  // namespace nibble::test
