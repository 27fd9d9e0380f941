// SPDX-License-Identifier: Apache-2.0
#include "quant/format.h"

namespace nibble::quant {

std::span<const int8_t, 16> codebook(int index) { return panel_codebook(index); }

}  // namespace nibble::quant
