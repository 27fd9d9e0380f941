// SPDX-License-Identifier: Apache-2.0
#include "quant/activation.h"

#include "tensor/check.h"

namespace nibble::quant {

ActNeeds act_needs(const QuantLayout& weights) {
  NIBBLE_CHECK(!float_weights(weights), "float weights do not read quantised activations");
  return panel_act_needs(weights);
}

ActGeometry act_geometry(const ActNeeds& needs, int64_t m, int64_t k) { return act_regions(needs, m, k); }

}  // namespace nibble::quant
