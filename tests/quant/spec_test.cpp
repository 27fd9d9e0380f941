// SPDX-License-Identifier: Apache-2.0
#include "quant/spec.h"

#include <gtest/gtest.h>

#include <string>

#include "quant/row_types.h"
#include "tensor/check.h"

namespace nibble::quant {
namespace {

TEST(Spec, NamesEveryTypeOfOurOwn) {
  size_t found = 0;
  for (const char* weight :
       {"int1", "int2", "int3", "int4", "int5", "int6", "int7", "int8", "nf4", "fp4", "fp8_e4m3", "fp8_e5m2"})
    for (const int group : {16, 32, 64, 128})
      for (const char* sign : {"sym", "asym"})
        for (const std::string_view scale : {"f16", "bf16", "f32", "fp8"}) {
          const bool integer = std::string_view(weight).starts_with("int"),
                     bytes = std::string_view(weight).starts_with("fp8");
          const std::string spec = message(weight, ":g", group, ":", sign, ":", scale);
          if ((!integer && std::string_view(sign) == "asym") || (bytes && group == 16)) {
            EXPECT_THROW(type_of_spec(spec), Error) << spec;
            continue;
          }
          const BlockType& type = type_of_spec(spec);
          const QuantLayout& layout = type.format->layout;
          EXPECT_EQ(layout.group, group) << spec;
          EXPECT_EQ(name(layout.scale), bytes ? "f32" : scale == "fp8" ? "f16" : scale) << spec;
          EXPECT_EQ(type.round_scale != nullptr, scale == "fp8" || (bytes && scale != "f32")) << spec;
          EXPECT_EQ(int{layout.bits}, integer ? weight[3] - '0' : bytes ? 8 : 4) << spec;
          EXPECT_EQ(layout.zero_point == ZeroPoint::minimum, std::string_view(sign) == "asym") << spec;
          EXPECT_EQ(layout.codebook != 0, !integer) << spec;
          ++found;
        }
  EXPECT_EQ(found, native_block_types().size());
  EXPECT_EQ(type_of_spec("int4:g128:sym:f16").name, "q4_g128");
  EXPECT_EQ(type_of_spec("int4").name, "q4_g64");
  EXPECT_EQ(type_of_spec("nf4:bf16").name, "nf4_g64_bf16");
}

TEST(Spec, DescribesWhatFoldersHold) {
  const QuantLayout fp8 = layout_of_spec("fp8_e4m3:bf16"), four = layout_of_spec("int4:g128:asym:f32"),
                    row = layout_of_spec("int8:row");
  EXPECT_EQ(fp8, (QuantLayout{.group = 0, .bits = 8, .scale = DType::bf16, .codebook = books::e4m3}));
  EXPECT_EQ(four, (QuantLayout{.group = 128, .bits = 4, .zero_point = ZeroPoint::integer, .scale = DType::f32}));
  EXPECT_EQ(row, (QuantLayout{.group = 0, .bits = 8, .scale = DType::f16}));
  for (const char* bad : {"fp8_e4m3:asym", "int4:fp8", "fp8_e4m3:fp8"}) EXPECT_THROW(layout_of_spec(bad), Error) << bad;
  for (const QuantLayout& layout : {fp8, four, row})
    EXPECT_EQ(layout_of_spec(spec_of(layout)), layout) << spec_of(layout);
}

TEST(Spec, SaysWhatThereIs) {
  for (const char* bad :
       {"", "int9", "int4:g48", "int4:sym:fp16", "fp8", "g64:int4", "int4:", "q4_0:g32", "fp8_e5m2:g16"}) {
    try {
      type_of_spec(bad);
      ADD_FAILURE() << bad;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("g16|g32|g64|g128"), std::string::npos) << error.what();
    }
  }
}

TEST(Spec, RowsHaveTheBlocksThatDivideThem) {
  for (const BlockType* type : native_block_types()) {
    if (type->block_elements != 128) continue;
    const std::string name = type->name == "q4_g128" ? "q4s_g128" : std::string(type->name);
    const BlockType* row = find_row_type(std::string(name).replace(name.find("_g128"), 5, "_row"));
    ASSERT_NE(row, nullptr) << name;
    EXPECT_TRUE(is_row_type(*row));
    EXPECT_EQ(row_blocks(*row, 256), type) << name;
    const BlockType* small = row_blocks(*row, 576);
    ASSERT_NE(small, nullptr) << name;
    EXPECT_EQ(small->block_elements, 64) << name;
    EXPECT_EQ(small->round_scale != nullptr, type->round_scale != nullptr) << name;
    EXPECT_EQ(row_blocks(*row, 40), nullptr) << name;
  }
  EXPECT_EQ(type_of_spec("int8:row:asym:bf16").name, "q8z_row_bf16");
  EXPECT_EQ(type_of_spec("fp8_e4m3").name, "e4m3_row");
  EXPECT_EQ(type_of_spec("nf4:row:fp8").name, "nf4_row_fp8");
  EXPECT_EQ(type_of_spec("fp8_e5m2:fp8").name, "e5m2_row_fp8");
  EXPECT_FALSE(is_row_type(type_of_spec("int4")));
}

}  // namespace
}  // namespace nibble::quant
