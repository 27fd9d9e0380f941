// SPDX-License-Identifier: Apache-2.0
#include "jit/gemm_key.h"

#include <algorithm>
#include <sstream>

#include "quant/format.h"
#include "tensor/check.h"
#include "tensor/panel.h"

namespace nibble::jit {

namespace {

std::string layout_name(const QuantLayout& w) {
  static constexpr char kinds[] = {'s', 'z', 'i'};
  std::ostringstream s;
  s << static_cast<int>(w.bits) << kinds[static_cast<int>(w.zero_point)];
  if (w.codebook) s << 'c' << static_cast<int>(w.codebook);
  if (w.group) s << "_g" << w.group;
  if (!w.group) s << "_row";
  if (w.sub_groups) s << 'x' << static_cast<int>(w.sub_groups);
  return s.str();
}

}  // namespace

std::string name(const GemmKey& key) {
  const bool panel = key.source == Source::panel;
  const bool usual = key.w.scale == (panel ? DType::f32 : DType::f16);
  const std::string weights =
      message(panel ? 'p' : 'q', layout_name(key.w), usual ? "" : "_", usual ? std::string_view() : name(key.w.scale));
  const int columns = key.panels * 16;
  if (key.rows == 0) return message("expand_", weights, '_', columns, '_', name(key.isa));
  return message(GemmShape(key).words ? "gemm_i16_" : "gemm_i8_", weights, "_f32_", static_cast<int>(key.rows), 'x',
                 columns, "x4", name(key.epilogue), '_', name(key.isa));
}

QuantLayout expanded_layout(Isa isa, const QuantLayout& w) {
  QuantLayout e = w;
  e.scale = GemmShape({isa, Source::packed, 1, 1, w}).biased_sums ? DType::f16 : DType::f32;
  e.sub_groups = 0;
  if (w.zero_point == ZeroPoint::integer) e.zero_point = ZeroPoint::minimum;
  return e;
}

GemmShape::GemmShape(const GemmKey& key) {
  const QuantLayout& w = key.w;
  const int rows = key.rows, panels = key.panels;
  whole_rows = w.group == 0;
  group = whole_rows ? quant::max_group : std::min<int>(w.group, quant::max_group);
  groups_per_record = quant::max_group / group;
  groups_per_scale = quant::act_group(group) / group;
  scales_per_record = quant::max_group / quant::act_group(group);
  words = panel_act_needs(w).bits == 16;
  zero_point = w.codebook ? panel_codebook(w.codebook).zero : 1 << (w.bits - 1);
  largest = w.codebook ? panel_codebook(w.codebook).largest() : (1 << w.bits) - 1;
  minimum = w.zero_point != ZeroPoint::symmetric;
  row_values = key.isa == Isa::amxint8;
  signed_codes = row_values ? !minimum : key.isa == Isa::avx2 && w.codebook && 2 * 127 * largest > 32767;
  // Around their zero point sums of 5 bits fit int16 over 32 k, of 6 bits over 16 (16 * 127 * 16 = 32 * 127 * 8 =
  // 32512).
  const bool centred = key.isa == Isa::avx2 && !minimum && !words && (w.bits == 5 || w.bits == 6);
  start_k = centred ? std::min(group, w.bits == 5 ? 32 : 16) : 0;
  int_sums = !minimum && !signed_codes && !centred;
  float_sums = minimum;
  // vpdpbusd starts its sums anywhere. AVX2 adds the activations' own at the end; where there are none, adding a bias
  // would take as long as converting.
  const bool vnni = key.isa == Isa::avxvnni || key.isa == Isa::avx512vnni;
  const bool can_bias = (vnni || (key.isa == Isa::avx2 && int_sums)) && !words;
  carries_biased = can_bias && int_sums;
  biased_sums = can_bias && w.scale == DType::f16;

  unit_k = std::max(quant::max_group, group * w.sub_groups);
  tail_k = whole_rows ? quant::block_k : group;
  code_block_bytes = w.bits * 64;
  const int scale_row = 16 * static_cast<int>(element_bytes(w.scale));
  if (w.sub_groups) {
    scale_bytes = (scale_row + w.sub_groups * 16) * (minimum ? 2 : 1);
    unit_scale_bytes = unit_k / (group * w.sub_groups) * scale_bytes;
  } else {
    scale_bytes = scale_row;
    if (w.zero_point == ZeroPoint::minimum) scale_bytes += scale_row;
    if (w.zero_point == ZeroPoint::integer) scale_bytes += 16;
    unit_scale_bytes = unit_k / group * scale_bytes;
  }

  const int sum_bytes = groups_per_record * rows * 4;
  const int value_bytes = words ? 2 : 1;
  act_int_sums = quant::max_group * rows * value_bytes;
  act_biased_sums = act_int_sums + (int_sums ? sum_bytes : 0);
  act_float_sums = act_biased_sums + (carries_biased ? sum_bytes : 0);
  act_scales = act_float_sums + (float_sums ? sum_bytes : 0);
  act_starts = act_scales + scales_per_record * rows * 4;
  act_bytes = act_starts + (start_k ? quant::max_group / start_k * rows * 4 : 0);
  if (row_values) act_bytes = (act_bytes + 63) / 64 * 64;  // a row of a tile must not cross lines

  panel_d = quant::max_group * panels * 16 * value_bytes;
  const int panel_floats = groups_per_record * panels * 64;
  panel_m = panel_d + panel_floats;
  panel_bias = panel_m + (minimum ? panel_floats : 0);
  panel_bytes = panel_bias + (biased_sums ? panel_floats : 0);
}

}  // namespace nibble::jit
