// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace nibble::jit {

/// Adds the int8 kernels of matmul_q, one per instruction set.
void register_matmul();

}  // namespace nibble::jit
