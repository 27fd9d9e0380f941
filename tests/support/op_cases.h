// SPDX-License-Identifier: Apache-2.0
// For every op: inputs, attributes, the wanted result and its error bound, made from independent loops
// (reference.h). List-driven tests run the ops' references and every kernel on them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/panels.h"
#include "tests/support/reference.h"
#include "tests/support/test_tensor.h"

namespace nibble::test {

inline constexpr int op_variants = 4;  ///< per op: epilogues, pairings, windows, ...

struct OpCase {
  std::string name;                    ///< for messages
  uint64_t seed = 0;
  Attrs attrs;
  std::vector<TestTensor> in;
  Doubles want;                        ///< row-major; a packed result is compared dequantised
  std::vector<double> bound;           ///< per element
  std::vector<std::unique_ptr<QuantFormat>> formats;  ///< of the packed inputs

  std::vector<Tensor> inputs() const;
};

/// False when no cases are written for the op (a test fails for it).
bool has_op_cases(std::string_view op);
/// `dtype` is the type of the float inputs where the op allows a choice; `size` scales all dimensions and need not be
/// round; strided inputs have gaps in every dimension (packed ones and those that must be contiguous don't).
OpCase op_case(std::string_view op, DType dtype, int64_t size, int variant, bool strided);

}  // namespace nibble::test
