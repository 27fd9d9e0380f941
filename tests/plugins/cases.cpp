// SPDX-License-Identifier: Apache-2.0
// A plugin that is wrong in the way that the environment variable NIBBLE_PLUGIN_CASE names.
#include "models/plugin.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string_view>

namespace {

using namespace nibble::models;

Arch named(std::string_view name, std::string_view type) {
  return {.name = name, .model_types = {type}, .examples = "none", .names = llama_names()};
}

Arch clash() { return named("llama", "other"); }
Arch type_clash() { return named("other", "gpt2"); }
Arch nameless() { return named("", "other"); }
Arch weightless() { return {.name = "other", .model_types = {"other"}, .examples = "none", .names = {}}; }
Arch throws() { throw std::runtime_error("no architecture today"); }
Arch throws_number() { throw 7; }
Arch config_throws() {
  Arch arch = named("plaid", "plaid");
  arch.config = [](const Metadata&) -> Config { throw 7; };
  return arch;
}
Arch block_throws() {
  Arch arch = named("plaid", "plaid");
  arch.block = [](Builder&, nibble::Value) -> nibble::Value { throw std::runtime_error("no block today"); };
  return arch;
}

ArchPlugin make() {
  const char* text = std::getenv("NIBBLE_PLUGIN_CASE");
  const std::string_view wanted = text != nullptr ? text : "";
  ArchPlugin plugin;
  if (wanted == "sizes") plugin.abi.arch_bytes += 8;
  if (wanted == "version") std::strcpy(plugin.abi.version, "0.0.9");
  const struct {
    std::string_view name;
    Arch (*arch)();
  } cases[] = {{"clash", clash}, {"type_clash", type_clash}, {"nameless", nameless}, {"weightless", weightless},
               {"throws", throws}, {"throws_number", throws_number}, {"config_throws", config_throws},
               {"block_throws", block_throws}};
  for (const auto& known : cases)
    if (known.name == wanted) plugin.arch = known.arch;
  return plugin;
}

}  // namespace

extern "C" const ArchPlugin* nibble_arch_plugin() noexcept {
  static const ArchPlugin plugin = make();
  return &plugin;
}
