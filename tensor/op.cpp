// SPDX-License-Identifier: Apache-2.0
#include "tensor/op.h"

#include <string>

#include "tensor/check.h"

namespace nibble {

namespace ops {
#define NIBBLE_OP(op_name) extern const OpDef op_name##_op;
#include "tensor/ops/op_list.inc"
#undef NIBBLE_OP
}  // namespace ops

std::span<const OpDef* const> all_ops() {
#define NIBBLE_OP(op_name) &ops::op_name##_op,
  static constexpr const OpDef* list[] = {
#include "tensor/ops/op_list.inc"
  };
#undef NIBBLE_OP
  return list;
}

const OpDef& op(std::string_view name) {
  std::string known;
  for (const OpDef* candidate : all_ops()) {
    if (candidate->name == name) return *candidate;
    known.append(known.empty() ? "" : ", ").append(candidate->name);
  }
  fail("unknown op ", name, "; known are ", known);
}

}  // namespace nibble
