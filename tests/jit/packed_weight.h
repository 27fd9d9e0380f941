// SPDX-License-Identifier: Apache-2.0
// Packed weights of any layout with random or extreme codes, written by the description in quant/format.h, and
// activations to go with them. Memory ends at a forbidden page.
#pragma once

#include <cstring>
#include <memory>

#include "quant/activation.h"
#include "quant/format.h"
#include "tensor/dtype.h"
#include "tests/support/guarded.h"
#include "tests/support/random.h"

namespace nibble::test {

enum class Codes { random, extreme };  ///< extreme: 0 and the largest code, activations of the largest values only

struct GuardedTensor {
  std::shared_ptr<Guarded> memory;
  Tensor tensor;
};

inline void write_scale(DType type, std::byte* at, float value) {
  const uint16_t half = type == DType::f16 ? f32_to_f16(value) : f32_to_bf16(value);
  if (type == DType::f32) {
    std::memcpy(at, &value, 4);
  } else {
    std::memcpy(at, &half, 2);
  }
}

inline void fill_scales(const QuantLayout& w, Random& random, std::byte* at) {
  const size_t element = element_bytes(w.scale);
  for (size_t c = 0; c < 16; ++c) write_scale(w.scale, at + c * element, random.uniform(-0.02f, 0.02f));
  at += 16 * element;
  if (w.zero_point == ZeroPoint::minimum) {
    for (size_t c = 0; c < 16; ++c) write_scale(w.scale, at + c * element, random.uniform(-0.3f, 0.3f));
    at += 16 * element;
  }
  int more = w.zero_point == ZeroPoint::integer ? 16 : 0;
  if (w.sub_groups) more = w.sub_groups * (w.zero_point == ZeroPoint::minimum ? 32 : 16);
  for (int i = 0; i < more; ++i) at[i] = static_cast<std::byte>(random.bits());
}

inline GuardedTensor packed_weight(const QuantFormat& format, int64_t n, int64_t k, Codes codes, Random& random) {
  const QuantLayout& w = format.layout;
  const quant::PanelGeometry g = quant::panel_geometry(w, n, k);
  const TensorDesc desc{{n, k}, DType::packed, &format};
  GuardedTensor out{std::make_shared<Guarded>(g.bytes(), Flush::end, 64), {}};
  out.tensor = Tensor(desc, out.memory->data());
  for (int64_t p = 0; p < g.panels; ++p) {
    std::byte* panel = out.tensor.data + p * static_cast<int64_t>(g.panel_bytes);
    for (size_t i = 0; i < g.scales_offset; ++i) {
      panel[i] = static_cast<std::byte>(codes == Codes::random || random.integer(0, 1) ? random.bits() : 0);
      if (codes == Codes::extreme && random.integer(0, 1)) panel[i] = std::byte{0xff};
      if (codes == Codes::extreme && panel[i] != std::byte{0xff}) panel[i] = std::byte{0};
    }
    const int64_t records = w.sub_groups ? g.groups / w.sub_groups : g.groups;
    for (int64_t r = 0; r < records; ++r) {
      fill_scales(w, random, panel + g.scales_offset + static_cast<size_t>(r) * g.scale_group_bytes);
    }
  }
  return out;
}

inline GuardedTensor packed_activations(const QuantLayout& w, int64_t m, int64_t k, Codes codes, Random& random) {
  const quant::ActNeeds needs = quant::act_needs(w);
  const TensorDesc desc{{m, k}, DType::packed, &quant::act_format(needs)};
  const size_t bytes = quant::act_geometry(needs, m, k).bytes;
  GuardedTensor out{std::make_shared<Guarded>(bytes, Flush::end, 64), {}};
  out.tensor = Tensor(desc, out.memory->data());
  for (int64_t i = 0; i < m; ++i) {
    std::vector<float> x = random.floats(k);
    if (codes == Codes::extreme) {
      for (float& v : x) v = v < 0 ? -1.0f : 1.0f;
    }
    quant::quantize_act_row(needs, x.data(), m, k, i, out.tensor.data);
  }
  return out;
}

}  // namespace nibble::test
