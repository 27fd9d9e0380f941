// SPDX-License-Identifier: Apache-2.0
// What jit.cpp calls to add the kernels of mixtures of experts.
#pragma once

namespace nibble::jit {

void register_matmul_experts();        ///< quantised weights
void register_matmul_experts_float();  ///< float panels
void register_routing();               ///< choose_experts, expert_weights, combine_experts, clamped_swiglu

}  // namespace nibble::jit
