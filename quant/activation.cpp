// SPDX-License-Identifier: Apache-2.0
#include "quant/activation.h"

#include "tensor/check.h"

namespace nibble::quant {

ActNeeds act_needs(const QuantLayout& weights) {
  NIBBLE_CHECK(weights.bits != 0, "float weights do not read quantised activations");
  return {.group = panel_act_group(weights), .offset = panel_act_offset(weights)};
}

const QuantFormat& act_format(const ActNeeds& needs) { return nibble::act_format(needs.group, needs.offset); }

ActNeeds act_needs_of(const QuantFormat& format) {
  return {.group = format.layout.group, .offset = act_offset(format)};
}

ActGeometry act_geometry(const ActNeeds& needs, int64_t m, int64_t k) { return act_regions(needs.group, m, k); }

void quantize_act_row(const ActNeeds& needs, const float* x, int64_t m, int64_t k, int64_t i, std::byte* out) {
  nibble::quantize_act_row(needs.group, needs.offset, x, m, k, i, out);
}

}  // namespace nibble::quant
