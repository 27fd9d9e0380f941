// SPDX-License-Identifier: Apache-2.0
// Architectures in shared objects, added while the program runs (docs/add-a-model.md). The plugin's source ends in
// NIBBLE_ARCH_PLUGIN(my_arch), where `Arch my_arch()` is what a file of models/arch/ defines. It is linked with
// nibble::plugin only, which brings headers and no library: what it calls, it finds in the program that loads it, so
// that there is one list of architectures and one of kernels. That program exports its symbols (CMake: ENABLE_EXPORTS).
#pragma once

#include <cstdint>
#include <string>

#include "models/arch.h"
#include "models/builder.h"
#include "models/config.h"
#include "tensor/version.h"

namespace nibble::models {

/// What both sides must have been compiled with alike. The order of `bytes` never changes; the rest may, as the program
/// reads no more when they differ.
struct PluginAbi {
  uint32_t bytes = sizeof(PluginAbi);
  char version[28] = NIBBLE_VERSION;
  uint32_t string_bytes = sizeof(std::string), arch_bytes = sizeof(Arch), config_bytes = sizeof(Config),
           metadata_bytes = sizeof(Metadata), defaults_bytes = sizeof(ConfigDefaults),
           attention_bytes = sizeof(AttentionOptions);
};

struct ArchPlugin {
  PluginAbi abi = {};
  Arch (*arch)() = nullptr;
};

/// Loads the plugin and adds its architecture; it stays until the process ends. Throws Error naming the file when it
/// cannot be loaded, is no plugin, was built for another version or by an unlike compiler, throws, or when add_arch
/// refuses. Not while other threads use the architectures.
const Arch& load_arch_plugin(const std::string& path);

}  // namespace nibble::models

#define NIBBLE_ARCH_PLUGIN(function)                                                    \
  extern "C" const ::nibble::models::ArchPlugin* nibble_arch_plugin() noexcept {        \
    static constexpr ::nibble::models::ArchPlugin plugin = {.abi = {}, .arch = function}; \
    return &plugin;                                                                     \
  }
