// SPDX-License-Identifier: Apache-2.0
#include "jit/epilogue.h"

#include <iterator>

#include "tensor/check.h"

namespace nibble::jit {

namespace {
constexpr std::string_view functions[] = {"", "silu", "gelu", "gelu_tanh", "relu"};
}  // namespace

Function parse_function(std::string_view name) {
  for (size_t i = 0; i < std::size(functions); ++i) {
    if (name == functions[i]) return static_cast<Function>(i);
  }
  fail("activation \"", name, "\": expected silu, gelu, gelu_tanh or relu");
}

std::string name(const Epilogue& e) {
  std::string text = e.bias ? "_bias" : "";
  if (e.function != Function::none) text += message('_', functions[static_cast<size_t>(e.function)]);
  if (e.gate) text += "_gate";
  if (e.residual) text += "_residual";
  if (e.narrow_residual()) text += message('_', nibble::name(e.residual_type()));
  return text;
}

std::vector<Epilogue> all_epilogues() {
  std::vector<Epilogue> list;
  for (uint8_t function = 0; function < std::size(functions); ++function) {
    for (uint8_t gate = 0; gate <= (function ? 1 : 0); ++gate) {
      for (uint8_t bias = 0; bias <= 1; ++bias) {
        list.push_back({static_cast<Function>(function), gate, bias, 0});
        for (const DType type : {DType::f32, DType::f16, DType::bf16}) {
          list.push_back(
              {static_cast<Function>(function), gate, bias, static_cast<uint8_t>(1 + static_cast<int>(type))});
        }
      }
    }
  }
  return list;
}

}  // namespace nibble::jit
