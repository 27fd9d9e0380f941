// SPDX-License-Identifier: Apache-2.0
#include "models/quantize.h"

#include <cstdint>
#include <utility>

#include "models/model_source.h"
#include "quant/format.h"
#include "quant/row_types.h"
#include "quant/spec.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

constexpr std::pair<std::string_view, std::string_view> short_names[] = {
    {"q2", "q2s_g64"}, {"q3", "q3s_g64"}, {"q4", "q4s_g32"}, {"q5", "q5s_g32"},
    {"q6", "q6s_g64"}, {"q8", "q8s_g32"}, {"nf4", "nf4_g64"}};

bool fits(const QuantFormat& format, int64_t k) {
  return format.layout.bits == 0 || format.layout.group == 0 || k % format.layout.group == 0;
}

/// The format of the same kind with the largest groups below its own that divide k; nullptr when there is none.
const QuantFormat* narrower(const QuantFormat& wanted, int64_t k) {
  const QuantFormat* best = nullptr;
  for (const QuantFormat* format : quant::all_formats()) {
    QuantLayout like = format->layout;
    like.group = wanted.layout.group;
    const bool same = like == wanted.layout && format->layout.group != 0 && format->layout.group < wanted.layout.group;
    if (same && fits(*format, k) && (best == nullptr || format->layout.group > best->layout.group)) best = format;
  }
  return best;
}

const QuantFormat& fitting(const QuantFormat& wanted, int64_t k, const QuantFormat& exact) {
  if (fits(wanted, k)) return wanted;
  if (const QuantFormat* format = narrower(wanted, k)) return *format;
  const QuantFormat& eight = quant::find_format("q8s_g32");
  return fits(eight, k) ? eight : exact;
}

}  // namespace

QuantizeRule::QuantizeRule(std::string_view name) {
  if (name.empty()) return;
  if (quant::looks_like_spec(name)) {
    const quant::BlockType& type = quant::type_of_spec(name);
    const bool coarse = type.name.ends_with("_fp8");
    NIBBLE_CHECK(!coarse && !quant::is_row_type(type), "format to quantise to: '", name,
                 "': groups of a row and scales of fp8 are for files; expected groups of g16 to g128 with scales of "
                 "f16, bf16 or f32");
    wanted_ = type.format;
    return;
  }
  std::string known;
  for (const auto& [brief, full] : short_names) {
    if (brief == name) name = full;
    known += message(brief, ", ");
  }
  for (const QuantFormat* format : quant::all_formats()) {
    if (format->layout.sub_groups != 0) continue;
    if (format->name == name) wanted_ = format;
    known += message(known.ends_with(' ') ? "" : ", ", format->name);
  }
  NIBBLE_CHECK(wanted_ != nullptr, "format to quantise to: expected one of ", known, "; found '", name, "'");
}

QuantizeRule QuantizeRule::floats() {
  QuantizeRule rule;
  rule.floats_ = true;
  return rule;
}

const QuantFormat& QuantizeRule::choose(std::string_view name, int64_t k, const QuantFormat& exact) const {
  constexpr int head_bits = 6;
  if (floats_ && exact.layout.bits != 0) return quant::find_format("f16");
  if (wanted_ == nullptr || !float_weights(exact.layout)) return exact;
  if (stays_exact(name)) return exact;
  const bool head = name == "embedding" || name == "output";
  const bool low = wanted_->layout.bits != 0 && wanted_->layout.bits < head_bits;
  return fitting(head && low ? quant::find_format("q6s_g64") : *wanted_, k, exact);
}

}  // namespace nibble::models
