// SPDX-License-Identifier: Apache-2.0
// Activations as GEMM kernels read them (gemm_key.h): rows of a tile interleaved, sums and scales beside their values,
// so that a kernel needs one pointer and fixed offsets, and rows a power of two apart do not share cache sets.
#pragma once

#include <cstddef>

#include "jit/gemm_key.h"
#include "quant/activation.h"

namespace nibble::jit {

struct Activations {
  quant::ActNeeds needs;
  const std::byte* data;  ///< (m, k), quant/activation.h
  int64_t m, k;
};

/// The records of k in [begin, end) of rows [row, row + rows) into `tile`, one after the other. begin is a multiple of
/// 128, end too unless it is k. `shape` is of a key with these rows.
void pack_act_tile(const GemmShape& shape, int rows, const Activations& act, int64_t row, int64_t begin, int64_t end,
                   std::byte* tile);

}  // namespace nibble::jit
