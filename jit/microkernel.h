// SPDX-License-Identifier: Apache-2.0
// What an instruction set offers to the macro-kernel (jit/matmul.cpp); jit/kernel_list.inc lists them.
#pragma once

#include <cstdint>
#include <span>

#include "jit/code.h"
#include "jit/gemm_key.h"

namespace nibble::jit {

/// Arguments of GEMM kernels and expanders; sizes come from GemmShape.
struct GemmArgs {
  const void* act = nullptr;     ///< activation tile, see gemm_key.h; unused by expanders
  const void* codes = nullptr;   ///< packed: codes at the first k; panel: the expanded record
  const void* scales = nullptr;  ///< packed: the first scale record
  void* out = nullptr;  ///< (rows, panels * 16) f32 totals, undefined once finished; expanders: expanded records
  int64_t units = 0;             ///< whole units of unit_k
  int64_t tail = 0;              ///< counts of tail_k behind them, less than a unit
  int64_t first = 0;             ///< not 0: totals start at zero instead of the values in `out`
  int64_t panel_stride = 0;      ///< bytes between packed panels
  int64_t* tiles = nullptr;      ///< AMX: which tile configuration this worker has loaded, 0 = none; kernels update it
  const void* next = nullptr;    ///< packed: codes of the panels that come next, to prefetch; not null
  FinishArgs finish = {};           ///< with a result: these totals are complete with this call, finish them
};

struct MicroKernel {
  Isa isa;         ///< of kernels on expanded weights, and of the expander
  Isa packed_isa;  ///< of kernels that unpack in registers; not above isa
  uint8_t packed_rows, packed_panels;  ///< largest tile that unpacks in registers
  uint8_t panel_rows, panel_panels;    ///< largest tile on expanded weights
  /// Up to so many rows unpacking for every tile of them beats expanding once.
  int (*packed_limit)(const QuantLayout& w);
  /// nullptr when kernels can be made for the layout, else a static string with the reason.
  const char* (*rejects)(const QuantLayout& w);
  /// Emits; the key's rows and panels are within the limits above. Throws Error.
  Code (*emit)(const GemmKey& key);
  /// What a worker runs after its last kernel of a matmul if a kernel set GemmArgs::tiles; null if none ever does.
  const Code& (*release)() = nullptr;
};

std::span<const MicroKernel* const> microkernels();

/// The cached kernel of `key`, emitted at first use.
const Code& gemm_code(const MicroKernel& kernel, const GemmKey& key);

}  // namespace nibble::jit
