// SPDX-License-Identifier: Apache-2.0
// The step that a group of weights is rounded by. Private to quant/.
#pragma once

#include "quant/format.h"

namespace nibble::quant {

/// The scale of a group whose weights reach from `low` to `high`, not yet rounded to its type; for layouts without
/// codebook. V is float, or a vector of floats for as many groups.
///
/// Symmetric: the peak becomes code 0, the end that reaches farther. The step widens only where the other end would lie
/// more than half a step beyond its last code.
template <class V>
[[gnu::always_inline]] inline void find_scale(const QuantLayout& layout, const V& low, const V& high, V& scale) {
  const V zero{};
  const auto top = static_cast<float>((1 << layout.bits) - 1);
  switch (layout.zero_point) {
    case ZeroPoint::symmetric: {
      const auto half = static_cast<float>(1 << (layout.bits - 1));
      const V below = low > zero ? low : zero - low, above = high > zero ? high : zero - high;
      const V peak = below >= above ? low : high;
      const V near = below >= above ? above : below, far = below >= above ? below : above;
      const V tight = far / half, wide = low * high < zero ? near / (half - 0.5f) : zero;
      const V step = tight < wide ? wide : tight;
      scale = peak > zero ? -step : step;
      return;
    }
    case ZeroPoint::minimum:
      scale = (high - low) / top;
      return;
    case ZeroPoint::integer: {
      const V first = zero < low ? zero : low, last = high < zero ? zero : high;
      scale = (last - first) / top;
    }
  }
}

}  // namespace nibble::quant
