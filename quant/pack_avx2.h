// SPDX-License-Identifier: Apache-2.0
// The common file block types, packed by shuffles instead of weight by weight. Private to quant/.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/format.h"

namespace nibble::quant {

/// Packs `blocks` blocks of each of 16 rows, `row_bytes` apart, as codes and scales of one panel: the same bytes that
/// decoding block by block gives.
using PackPanel = void (*)(const std::byte* rows, size_t row_bytes, int64_t blocks, std::byte* codes,
                           std::byte* scales);

/// nullptr when there is none for the type, or not for this CPU.
PackPanel find_fast_packer(const BlockType& type);

}  // namespace nibble::quant
