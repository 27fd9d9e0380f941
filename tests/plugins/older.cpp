// SPDX-License-Identifier: Apache-2.0
// A plugin for another version, of which it wants a function that this one does not have.
#include "models/plugin.h"

#include <cstring>

namespace nibble::models {
Arch gone_since();
}

extern "C" const nibble::models::ArchPlugin* nibble_arch_plugin() noexcept {
  static nibble::models::ArchPlugin plugin = {.abi = {}, .arch = [] { return nibble::models::gone_since(); }};
  std::strcpy(plugin.abi.version, "0.0.9");
  return &plugin;
}
