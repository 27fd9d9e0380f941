// SPDX-License-Identifier: Apache-2.0
// The public face of jit/: nothing else in this folder is included from outside (tests and benches excepted).
#pragma once

#include <string>
#include <vector>

#include "tensor/cpu.h"

namespace nibble::jit {

/// Adds the generated kernels to the list of tensor/kernel.h. Call once at start-up; calling again is harmless.
void register_kernels();

/// For `nibble kernels`: every microkernel the list can make for an ISA, by name ("gemm_i8_q4s_g32_f32_4x16x4_avx2").
/// Epilogues are listed with one kernel only; emit_kernel takes them behind the tile of every gemm_i8 and gemm_i16
/// name.
std::vector<std::string> list_kernels(Isa isa);
/// Machine code of the named kernel. Throws Error when the name is unknown.
std::vector<unsigned char> emit_kernel(const std::string& name);

}  // namespace nibble::jit
