// SPDX-License-Identifier: Apache-2.0
#include "models/plugin.h"

#include <cstring>
#include <exception>
#include <filesystem>
#include <memory>
#include <new>
#include <utility>

#include <dlfcn.h>

#include "tensor/check.h"

namespace nibble::models {

namespace {

struct Close {
  void operator()(void* object) const { dlclose(object); }
};
using Handle = std::unique_ptr<void, Close>;

std::string why() {
  const char* text = dlerror();
  return text != nullptr ? text : "no reason given";
}

Handle open(const std::string& path, int mode) {
  Handle object(dlopen(path.c_str(), mode | RTLD_LOCAL));
  if (object == nullptr) fail("plugin ", path, ": ", why());
  return object;
}

void check_abi(const std::string& path, const PluginAbi& theirs) {
  const PluginAbi ours;
  const size_t length = strnlen(theirs.version, sizeof(theirs.version));
  const std::string_view version(theirs.version, length);
  NIBBLE_CHECK(version == NIBBLE_VERSION, "plugin ", path,
               ": expected one built for nibble " NIBBLE_VERSION ", found one for ", printable(version));
  NIBBLE_CHECK(theirs.bytes == ours.bytes && std::memcmp(&theirs, &ours, sizeof(ours)) == 0, "plugin ", path,
               ": its structures have other sizes than ours (Arch: expected ", ours.arch_bytes, " bytes, found ",
               theirs.bytes == ours.bytes ? theirs.arch_bytes : 0,
               "): built with other headers, another compiler or other options");
}

Arch call(const std::string& path, Arch (*arch)()) {
  NIBBLE_CHECK(arch != nullptr, "plugin ", path, ": expected a function that makes the architecture, found none");
  std::string reason;
  try {
    return arch();
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    reason = error.what();
  } catch (...) {
    reason = "something that is no std::exception";
  }
  // out of the handlers, as the exception may need the plugin's code, which goes away with our error
  fail("plugin ", path, ": its architecture threw: ", reason);
}

}  // namespace

const Arch& load_arch_plugin(const std::string& path) {
  const std::string file = std::filesystem::absolute(path);  // without a slash dlopen would search the system's folders
  NIBBLE_CHECK(std::filesystem::exists(file), "plugin ", path, ": no such file");
  // Lazily first: a plugin for another version may lack symbols, but can still say what it was built for.
  Handle lazy = open(file, RTLD_LAZY);
  const auto entry = reinterpret_cast<const ArchPlugin* (*)()>(dlsym(lazy.get(), "nibble_arch_plugin"));
  NIBBLE_CHECK(entry != nullptr, "plugin ", path, ": no plugin of nibble: it has no function nibble_arch_plugin");
  const ArchPlugin* plugin = entry();
  NIBBLE_CHECK(plugin != nullptr, "plugin ", path, ": nibble_arch_plugin returned nothing");
  check_abi(path, plugin->abi);
  const Handle object = open(file, RTLD_NOW);
  try {
    const Arch& added = add_arch(call(path, plugin->arch));
    static_cast<void>(lazy.release());  // the architecture is code and text of the plugin
    return added;
  } catch (const Error& error) {
    const std::string text = error.what();
    fail(text.starts_with("plugin ") ? text : message("plugin ", path, ": ", text));
  }
}

}  // namespace nibble::models
