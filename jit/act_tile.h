// SPDX-License-Identifier: Apache-2.0
// Activations as GEMM kernels read them (gemm_key.h): rows of a tile interleaved, sums and scales beside their values,
// so that a kernel needs one pointer and fixed offsets, and rows a power of two apart do not share cache sets.
#pragma once

#include <cstddef>

#include "jit/gemm_key.h"
#include "quant/activation.h"

namespace nibble::jit {

/// Bytes of the tile that key.rows activation rows of length k become.
size_t act_tile_bytes(const GemmShape& shape, int64_t k);

/// Rows [row, row + rows) of the (m, k) activation tensor at `act` into `tile`. `shape` is of a key with these rows.
void pack_act_tile(const GemmShape& shape, int rows, const quant::ActNeeds& needs, const std::byte* act, int64_t m,
                   int64_t k, int64_t row, std::byte* tile);

}  // namespace nibble::jit
