// SPDX-License-Identifier: Apache-2.0
// The only seam between GemmFloat and xbyak.
#pragma once

#include "jit/gemm_float.h"

namespace nibble::jit {

/// The key's registers must fit (gemm_float checks). Thread safe; the code lives as long as the process.
GemmFloatFn emit_gemm_float(const GemmFloatKey& key);

}  // namespace nibble::jit
