// SPDX-License-Identifier: Apache-2.0
#include "models/io/gguf_types.h"

#include <iterator>

namespace nibble::models {

GgufTypeName gguf_type_name(uint32_t id) {
  static constexpr GgufTypeName names[] = {
      {"f32"},     {"f16"},         {"q4_0"},        {"q4_1"},        {"q4_2", true},        {"q4_3", true},
      {"q5_0"},    {"q5_1"},        {"q8_0"},        {"q8_1"},        {"q2_k"},              {"q3_k"},
      {"q4_k"},    {"q5_k"},        {"q6_k"},        {"q8_k"},        {"iq2_xxs"},           {"iq2_xs"},
      {"iq3_xxs"}, {"iq1_s"},       {"iq4_nl"},      {"iq3_s"},       {"iq2_s"},             {"iq4_xs"},
      {"i8"},      {"i16"},         {"i32"},         {"i64"},         {"f64"},               {"iq1_m"},
      {"bf16"},    {"q4_0_4_4", true}, {"q4_0_4_8", true}, {"q4_0_8_8", true}, {"tq1_0"},     {"tq2_0"},
      {"iq4_nl_4_4", true}, {"iq4_nl_4_8", true}, {"iq4_nl_8_8", true}, {"mxfp4"}, {"nvfp4"}, {"q1_0"},
      {"q2_0"}};
  return id < std::size(names) ? names[id] : GgufTypeName{};
}

const quant::BlockType* gguf_plain_type(std::string_view name) {
  static const quant::BlockType types[] = {{"i8", 24, 1, 1, nullptr, nullptr, nullptr},
                                           {"i16", 25, 1, 2, nullptr, nullptr, nullptr},
                                           {"i32", 26, 1, 4, nullptr, nullptr, nullptr},
                                           {"i64", 27, 1, 8, nullptr, nullptr, nullptr},
                                           {"f64", 28, 1, 8, nullptr, nullptr, nullptr}};
  for (const quant::BlockType& type : types)
    if (type.name == name) return &type;
  return nullptr;
}

}  // namespace nibble::models
