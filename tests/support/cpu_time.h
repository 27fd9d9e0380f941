// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ctime>

namespace nibble::test {

/// Seconds of processor time that this process has used: tests of how time grows are not to fail on busy machines.
inline double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

}  // namespace nibble::test
