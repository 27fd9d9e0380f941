// SPDX-License-Identifier: Apache-2.0
#include "jit/float_kernels.h"

namespace nibble::jit {

void register_float_kernels() {
  register_attention();
}

}  // namespace nibble::jit
