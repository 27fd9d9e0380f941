// SPDX-License-Identifier: Apache-2.0
#include "jit/float_kernels.h"

namespace nibble::jit {

void register_float_kernels() {
  register_attention();
  register_matmul_float();
  register_elementwise();
  register_norms();
  register_rows();
}

}  // namespace nibble::jit
