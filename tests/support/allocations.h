// SPDX-License-Identifier: Apache-2.0
// Counts allocations: a binary that uses this has its operator new replaced.
#pragma once

#include "tensor/parallel.h"

namespace nibble::test {

/// Calls of operator new, on any thread, while `body` runs.
int allocations_during(FunctionRef<void()> body);

}  // namespace nibble::test
