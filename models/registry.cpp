// SPDX-License-Identifier: Apache-2.0
// The list of architectures, made from arch_list.inc.
#include <array>
#include <span>
#include <string>

#include "models/arch.h"
#include "tensor/check.h"

namespace nibble::models {

std::span<const Arch> all_archs() {
  static const std::vector<Arch> archs = {
#define NIBBLE_ARCH(name) name##_arch(),
#include "models/arch_list.inc"
#undef NIBBLE_ARCH
  };
  return archs;
}

const Arch& find_arch(std::string_view name_or_type) {
  std::string known;
  for (const Arch& arch : all_archs()) {
    if (arch.name == name_or_type) return arch;
    for (std::string_view type : arch.model_types)
      if (type == name_or_type) return arch;
    known += (known.empty() ? "" : ", ") + std::string(arch.name);
  }
  fail("unknown architecture '", name_or_type, "'; known: ", known);
}

}  // namespace nibble::models
