// SPDX-License-Identifier: Apache-2.0
// What jit.cpp calls to add the kernels of floats: each function adds one file's.
#pragma once

namespace nibble::jit {

void register_attention();
void register_matmul_float();
void register_elementwise();
void register_norms();
void register_rows();

/// All of them.
void register_float_kernels();

}  // namespace nibble::jit
