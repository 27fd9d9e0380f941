// SPDX-License-Identifier: Apache-2.0
// What benchmarks with flags of their own share.
#pragma once

#include <charconv>
#include <cstdio>
#include <exception>
#include <string_view>

#include "tensor/check.h"

namespace nibble::bench {

/// N of "--flag=N". Throws Error when it is no number from 1 on.
inline int flag_number(std::string_view flag) {
  const std::string_view value = flag.substr(flag.find('=') + 1);
  int number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  NIBBLE_CHECK(error == std::errc() && end == value.data() + value.size() && number > 0, flag,
               ": expected a number from 1 on");
  return number;
}

/// The exit status of `run`, or 1 with the error on stderr.
inline int guarded_main(int (*run)(int, char**), int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}

}  // namespace nibble::bench
