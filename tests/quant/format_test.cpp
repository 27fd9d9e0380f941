// SPDX-License-Identifier: Apache-2.0
#include "quant/format.h"

#include <gtest/gtest.h>

#include <cctype>
#include <set>
#include <string>

#include "tensor/check.h"
#include "tests/quant/files.h"

namespace nibble::quant {
namespace {

// The name a layout must have: see docs/formats.md.
std::string expected_name(const QuantLayout& l) {
  if (l.bits == 0) return std::string(name(l.scale));
  std::string s = message("q", int{l.bits}, "szi"[static_cast<int>(l.zero_point)]);
  if (l.codebook) s = panel_codebook(l.codebook).name;
  s += l.group ? message("_g", l.group) : "_row";
  if (l.sub_groups) s += message("x", int{l.sub_groups});
  const DType usual = l.group ? DType::f16 : DType::f32;
  if (l.scale != usual) s += message("_", name(l.scale));
  return s;
}

TEST(QuantFormats, NamesSayTheLayout) {
  std::set<std::string> names;
  for (const QuantFormat* format : all_formats()) {
    EXPECT_EQ(format->name, expected_name(format->layout));
    EXPECT_TRUE(names.insert(std::string(format->name)).second) << format->name << " twice";
    EXPECT_EQ(&find_format(format->name), format);
  }
}

TEST(QuantFormats, UnknownNameIsRefusedWithTheKnownOnes) {
  try {
    find_format("q9s");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("q9s"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("q4s_g32"), std::string::npos);
  }
}

TEST(QuantFormats, BytesAreTheBitsOfTheLayout) {
  const int64_t n = 64, k = 4096;
  for (const QuantFormat* format : all_formats()) {
    const QuantLayout& l = format->layout;
    const double element = 8.0 * static_cast<double>(element_bytes(l.scale));
    double bits = element;
    if (l.bits != 0) {
      const double group = l.group ? l.group : 128, minima = l.zero_point == ZeroPoint::minimum ? 2 : 1;
      bits = l.bits + minima * element / (group * (l.sub_groups ? l.sub_groups : 1));
      if (l.sub_groups) bits += minima * 8 / group;
      if (l.zero_point == ZeroPoint::integer) bits += 8 / group;
    }
    EXPECT_EQ(static_cast<double>(format->bytes(*format, n, k)) * 8 / (n * k), bits) << format->name;
    EXPECT_EQ(format->bytes(*format, n - 15, k), format->bytes(*format, n, k)) << format->name;
  }
}

TEST(QuantFormats, RefuseWidthsThatSplitAGroup) {
  for (const QuantFormat* format : all_formats()) {
    const QuantLayout& l = format->layout;
    if (l.bits == 0 || l.group == 0) {
      EXPECT_NO_THROW(format->bytes(*format, 16, 13)) << format->name;
      continue;
    }
    const int64_t unit = l.group * (l.sub_groups ? l.sub_groups : 1);
    EXPECT_NO_THROW(format->bytes(*format, 16, 3 * unit)) << format->name;
    EXPECT_THROW(format->bytes(*format, 16, 3 * unit + unit / 2), Error) << format->name;
  }
}

// The table of docs/formats.md: type, id, block, format and bits of every block type that is not a float's.
TEST(BlockTypes, AreAsTheDocumentationSays) {
  const std::string page = test::read_text(NIBBLE_SOURCE_DIR "/docs/formats.md");
  const int64_t n = 32, k = 4096;
  for (const BlockType* type : all_block_types()) {
    std::string name(type->name);
    for (char& c : name) c = static_cast<char>(std::toupper(c));
    const double file = static_cast<double>(type->block_bytes) * 8 / type->block_elements;
    const double packed = static_cast<double>(type->format->bytes(*type->format, n, k)) * 8 / (n * k);
    const std::string row =
        message("| ", name, " | ", type->gguf_id, " | ", type->block_elements, ", ", type->block_bytes, " | `",
                type->format->name, "` | ", file, " | ", packed, " | ", type->encode ? "yes" : "no", " |");
    EXPECT_NE(page.find(row), std::string::npos) << "docs/formats.md lacks " << row;
  }
}

TEST(BlockTypes, AreFoundByTheirGgmlId) {
  std::set<std::string_view> names;
  for (const BlockType* type : all_block_types()) {
    EXPECT_EQ(find_block_type(type->gguf_id), type);
    EXPECT_TRUE(names.insert(type->name).second) << type->name << " twice";
    EXPECT_EQ(type->decode == nullptr, type->format->layout.bits == 0) << type->name;
  }
  EXPECT_EQ(find_block_type(2)->name, "q4_0");
  EXPECT_EQ(find_block_type(12)->name, "q4_k");
  EXPECT_EQ(find_block_type(30)->name, "bf16");
  EXPECT_EQ(find_block_type(4), nullptr);
  EXPECT_EQ(find_block_type(0xffffffff), nullptr);
}

}  // namespace
}  // namespace nibble::quant
