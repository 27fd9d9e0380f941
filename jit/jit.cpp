// SPDX-License-Identifier: Apache-2.0
#include "jit/jit.h"

#include "jit/float_kernels.h"
#include "jit/matmul.h"

namespace nibble::jit {

void register_kernels() {
  register_matmul();
  register_float_kernels();
}

}  // namespace nibble::jit
