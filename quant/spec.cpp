// SPDX-License-Identifier: Apache-2.0
#include "quant/spec.h"

#include <algorithm>
#include <string>

#include "quant/row_types.h"
#include "tensor/check.h"

namespace nibble::quant {

namespace {

constexpr std::string_view weights[] = {"int1", "int2", "int3", "int4", "int5",     "int6",
                                        "int7", "int8", "nf4",  "fp4",  "fp8_e4m3", "fp8_e5m2"};
constexpr std::string_view group_names[] = {"g16", "g32", "g64", "g128", "row"};
constexpr std::string_view signs[] = {"sym", "asym"};
constexpr std::string_view scale_types[] = {"f16", "bf16", "f32", "fp8"};

template <size_t count>
bool is_one_of(const std::string_view (&names)[count], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

std::string list_of_parts() {
  std::string out = "expected";
  const auto add = [&](const char* what, auto& names) {
    out += message(" ", what);
    for (std::string_view name : names) out += message(&name == &names[0] ? " " : "|", name);
  };
  add("weights", weights);
  add("[: group", group_names);
  add("] [:", signs);
  add("] [: scale", scale_types);
  return out + "]";
}

struct Parts {
  std::string_view weight, group, sign = "sym", scale = "f16";
  bool integer() const { return weight.starts_with("int"); }
  bool float8() const { return weight.starts_with("fp8_"); }
};

Parts parts_of(std::string_view spec) {
  Parts parts;
  std::string_view rest = spec;
  for (bool first = true, more = true; more; first = false) {
    const size_t colon = rest.find(':');
    const std::string_view part = rest.substr(0, colon);
    if (first && is_one_of(weights, part)) parts.weight = part;
    else if (!first && is_one_of(group_names, part)) parts.group = part;
    else if (!first && is_one_of(signs, part)) parts.sign = part;
    else if (!first && is_one_of(scale_types, part)) parts.scale = part;
    else fail("weights '", spec, "': '", part, "' is not known: ", list_of_parts());
    more = colon != std::string_view::npos;
    if (more) rest.remove_prefix(colon + 1);
  }
  if (parts.group.empty()) parts.group = parts.float8() ? "row" : "g64";
  NIBBLE_CHECK(parts.integer() || parts.sign == "sym", "weights '", spec, "': ", parts.weight,
               " has no asymmetric form");
  return parts;
}

}  // namespace

bool looks_like_spec(std::string_view name) {
  return name.find(':') != std::string_view::npos || name.starts_with("int") || name.starts_with("fp8");
}

const BlockType& type_of_spec(std::string_view spec) {
  const Parts parts = parts_of(spec);
  const std::string stem = parts.integer()  ? message("q", parts.weight.substr(3), parts.sign == "sym" ? "s" : "z")
                           : parts.float8() ? std::string(parts.weight.substr(4))
                                            : std::string(parts.weight);
  const std::string name =
      message(stem, "_", parts.group, parts.scale == "f16" ? "" : "_", parts.scale == "f16" ? "" : parts.scale);
  const BlockType* type = parts.group == "row" ? find_row_type(name) : find_native_type(name);
  NIBBLE_CHECK(type != nullptr, "weights '", spec, "': no type ", name, ": ", list_of_parts());
  return *type;
}

QuantLayout layout_of_spec(std::string_view spec) {
  const Parts parts = parts_of(spec);
  QuantLayout layout{.group = 0, .bits = 4};
  if (parts.group != "row") layout.group = static_cast<uint16_t>(std::stoi(std::string(parts.group.substr(1))));
  NIBBLE_CHECK(parts.scale != "fp8", "weights '", spec,
               "': scales of fp8 only stand in GGUF files, in types of our own");
  layout.scale = parts.scale == "f16" ? DType::f16 : parts.scale == "bf16" ? DType::bf16 : DType::f32;
  if (parts.integer()) {
    layout.bits = static_cast<uint8_t>(parts.weight[3] - '0');
    layout.zero_point = parts.sign == "sym" ? ZeroPoint::symmetric : ZeroPoint::integer;
  } else {
    layout.codebook = parts.weight == "nf4"        ? books::nf4
                      : parts.weight == "fp4"      ? books::fp4
                      : parts.weight == "fp8_e4m3" ? books::e4m3
                                                   : books::e5m2;
    if (parts.float8()) layout.bits = 8;
  }
  return layout;
}

std::string spec_of(const QuantLayout& layout) {
  const FloatBook* book = float_book(layout.codebook);
  std::string out = layout.codebook == books::nf4_float   ? "nf4"
                    : layout.codebook == books::fp4_float ? "fp4"
                    : book != nullptr                     ? message("fp8_", book->name)
                    : layout.codebook != 0                ? std::string(panel_codebook(layout.codebook).name)
                                                          : message("int", int{layout.bits});
  out += layout.group != 0 ? message(":g", layout.group) : ":row";
  if (layout.codebook == 0) out += layout.zero_point == ZeroPoint::symmetric ? ":sym" : ":asym";
  return out + message(":", name(layout.scale));
}

}  // namespace nibble::quant
