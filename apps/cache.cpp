// SPDX-License-Identifier: Apache-2.0
// nibble cache: what --packed-cache keeps.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <cstdio>
#include <memory>
#include <string>

#include "apps/command.h"
#include "apps/terminal.h"
#include "models/io/packed_cache.h"

namespace nibble::cli {

namespace {

int list(const models::PackedCache& cache) {
  uint64_t sum = 0;
  for (const auto& copy : cache.list()) {
    std::printf("%10s  %s  %s\n", human_bytes(copy.bytes).c_str(), copy.path.c_str(),
                copy.about.empty() ? "(cannot be used)" : printable(copy.about).c_str());
    sum += copy.bytes;
  }
  std::printf("%10s  in %s\n", human_bytes(sum).c_str(), cache.folder().c_str());
  return 0;
}

}  // namespace

Action setup_cache(CLI::App& app) {
  auto folder = std::make_shared<std::string>();
  auto clear = std::make_shared<bool>(false);
  app.add_option("--dir", *folder, "The folder that --packed-cache names (default: ~/.cache/nibble/packed)")
      ->type_name("DIR");
  app.add_flag("--clear", *clear, "Remove all of them");
  app.footer("Example:\n  nibble cache --clear");
  return [folder, clear] {
    const models::PackedCache cache(folder->empty() ? models::default_packed_cache() : *folder);
    if (!*clear) return list(cache);
    std::printf("%s freed in %s\n", human_bytes(cache.clear()).c_str(), cache.folder().c_str());
    return 0;
  };
}

}  // namespace nibble::cli
