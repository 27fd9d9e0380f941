// SPDX-License-Identifier: Apache-2.0
// Emits an epilogue behind the sums of a kernel, from the registers or the tile that hold its totals.
#pragma once

#include "jit/epilogue.h"
#include "jit/generator.h"

namespace nibble::jit {

/// Where a kernel has its totals when it finishes: registers (row, vector) from `first_register` on, or (-1) a tile.
struct Totals {
  int rows = 0, vectors = 0;           ///< vectors per row
  int first_register = -1;
  Xbyak::Reg64 tile;                   ///< row by row without gaps; changed
};
/// Vector registers that emit_finish wants besides those of the totals.
inline constexpr int finish_registers = 12;
/// Bytes that emit_finish wants at the bottom of the frame.
int finish_frame_bytes(const Epilogue& epilogue, const Totals& totals);
/// Emits the finishing. `args` holds the address of a FinishArgs and stays; rax, rcx, rdx, rsi and r9 to r12 are
/// clobbered, vector registers too.
void emit_finish(Generator& g, const Epilogue& epilogue, const Totals& totals, const Xbyak::RegExp& args);

}  // namespace nibble::jit
