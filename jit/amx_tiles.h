// SPDX-License-Identifier: Apache-2.0
// How the kernels that use AMX name and configure the eight tile registers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace nibble::jit {

/// Tiles 0 to 3 are int32 sums (rows, 16), 4 and 5 activations (rows, k), 6 and 7 weights (k / 4, 16 columns of four
/// k).
inline constexpr int first_act_tile = 4, first_weight_tile = 6;

/// The operand of ldtilecfg: 1 to 16 rows, `k` of one inner product from 4 to 64.
inline std::array<uint8_t, 64> tile_config(int rows, int k) {
  std::array<uint8_t, 64> bytes{};
  bytes[0] = 1;  // palette
  for (int t = 0; t < 8; ++t) {
    const bool act = t >= first_act_tile && t < first_weight_tile;
    bytes[16 + 2 * static_cast<size_t>(t)] = static_cast<uint8_t>(act ? k : 64);               // bytes of a row
    bytes[48 + static_cast<size_t>(t)] = static_cast<uint8_t>(t < first_weight_tile ? rows : k / 4);  // rows
  }
  return bytes;
}

}  // namespace nibble::jit
