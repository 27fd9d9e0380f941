// SPDX-License-Identifier: Apache-2.0
// Runs a program that was built beside the tests.
#pragma once

#include <string>

namespace nibble::test {

struct Outcome {
  int code = -1;  ///< exit code, or 1000 + the signal
  std::string out, error;
};

/// `environment` program `arguments` through the shell; the caller quotes. `environment` is "NAME=value ..." or empty.
Outcome run_command(const std::string& environment, const std::string& program, const std::string& arguments);

}  // namespace nibble::test
