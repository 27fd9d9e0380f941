// SPDX-License-Identifier: Apache-2.0
// Dense matmul by oneDNN (https://github.com/oneapi-src/oneDNN) as one more kernel of the list.
#pragma once

namespace nibble {

/// Adds "matmul_onednn" and caps oneDNN's own instruction set at max_isa(). Calling twice is harmless.
void register_onednn_kernels();

}  // namespace nibble
