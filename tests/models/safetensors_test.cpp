// SPDX-License-Identifier: Apache-2.0
// Safetensors files, sound and broken: each broken one gives an Error that names the file and the place.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "models/io/safetensors.h"
#include "tensor/check.h"
#include "tests/support/gguf_writer.h"

namespace nibble::models {
namespace {

using test::raw;

std::string file_of(const std::string& header, size_t data_bytes) {
  return raw(uint64_t{header.size()}) + header + std::string(data_bytes, '\1');
}

std::string entry(const std::string& name, const std::string& type, const std::string& shape,
                  const std::string& offsets) {
  return message("\"", name, R"(":{"dtype":")", type, R"(","shape":)", shape, R"(,"data_offsets":)", offsets, "}");
}

std::vector<StoredTensor> read(const std::string& bytes) {
  const test::TempDir dir;
  test::write_file(dir / "m.safetensors", bytes);
  const MappedFile file(dir / "m.safetensors");
  return read_safetensors(file, 3);
}

TEST(Safetensors, TensorsOfEveryTypeInTheOrderOfTheirNames) {
  struct Type {
    const char *stored, *ours;
    size_t bytes;
  };
  const Type types[] = {{"F64", "f64", 8},         {"F32", "f32", 4},         {"F16", "f16", 2}, {"BF16", "bf16", 2},
                        {"I8", "i8", 1},           {"U8", "u8", 1},           {"I16", "i16", 2}, {"I32", "i32", 4},
                        {"I64", "i64", 8},         {"BOOL", "bool", 1},       {"U16", "u16", 2}, {"U32", "u32", 4},
                        {"F8_E4M3", "f8_e4m3", 1}, {"F8_E5M2", "f8_e5m2", 1}, {"U64", "u64", 8}};
  std::string header = R"({"__metadata__":{"format":"pt"})";
  size_t at = 0;
  for (const Type& type : types) {
    const size_t end = at + 6 * type.bytes;
    header += std::string(",") + entry(type.ours, type.stored, "[2,3]", message("[", at, ",", end, "]"));
    at = end;
  }
  const std::vector<StoredTensor> tensors = read(file_of(header + "}   ", at));
  ASSERT_EQ(tensors.size(), std::size(types));
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(tensors[i].type_name(), tensors[i].name);
    EXPECT_EQ(tensors[i].shape, (Shape{2, 3}));
    EXPECT_EQ(tensors[i].file, 3u);
    EXPECT_LT(i > 0 ? tensors[i - 1].name : "", tensors[i].name);
  }
}

TEST(Safetensors, EmptyTensorsScalarsAndManyDimensions) {
  const std::string header = std::string("{") + entry("scalar", "F32", "[]", "[0,4]") + std::string(",") +
                             entry("none", "F32", "[2,0,3]", "[4,4]") + "," +
                             entry("deep", "I8", "[2,1,2,1,3]", "[4,16]") + R"(,"__metadata__":null})";
  const std::vector<StoredTensor> tensors = read(file_of(header, 16));
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_EQ(tensors[0].shape, (Shape{2, 2, 1, 3}));
  EXPECT_EQ(tensors[1].shape, (Shape{2, 0, 3}));
  EXPECT_EQ(tensors[2].shape, Shape{});
  EXPECT_TRUE(read(file_of("{}", 0)).empty());
}

struct Broken {
  std::string name, bytes;
  std::vector<std::string> mentions;
};
void PrintTo(const Broken& test, std::ostream* out) { *out << test.name; }

std::vector<Broken> broken() {
  const auto one = [](const std::string& type, const std::string& shape, const std::string& offsets, size_t data) {
    return file_of(std::string("{") + entry("x", type, shape, offsets) + "}", data);
  };
  const auto fields = [](const std::string& text, size_t data) {
    return file_of(message(R"({"x":{)", text, "}}"), data);
  };
  const std::string a = entry("a", "F32", "[2]", "[0,8]");
  std::string nested;
  for (int i = 0; i < 100000; ++i) nested += "[";
  return {
      {"Empty", "", {"8 bytes"}},
      {"SevenBytes", "1234567", {"8 bytes", "7"}},
      {"HeaderOfNothing", raw(uint64_t{0}), {"'{'"}},
      {"HeaderBeyondFile", raw(uint64_t{100}) + "{}", {"100", "2"}},
      {"HeaderEndless", raw(~uint64_t{0}) + "{}", {"18446744073709551615"}},
      {"HeaderTooLarge", file_of(std::string(100'000'001, ' '), 0), {"100000001", "100000000"}},
      {"NotAnObject", file_of("[]", 0), {"'{'"}},
      {"LeadingSpace", file_of(" {}", 0), {"'{'"}},
      {"TrailingJunk", file_of("{}x", 0), {"not valid JSON"}},
      {"NotUtf8", file_of("{\"\xff\":1}", 0), {"not valid JSON"}},
      {"CutShort", file_of(std::string("{") + a, 8), {"not valid JSON"}},
      {"Nested", file_of(message("{\"x\":", nested), 0), {"x"}},
      {"NestedShape", one("F32", "[[2]]", "[0,8]", 8), {"x"}},
      {"NestedObject", fields(R"("dtype":{"dtype":{}})", 0), {"x", "dtype"}},
      {"TwiceTheSameName",
       file_of(std::string("{") + a + std::string(",") + entry("a", "F32", "[2]", "[8,16]") + "}", 16),
       {"'a'", "twice"}},
      {"TwiceTheMetadata", file_of(R"({"__metadata__":{},"__metadata__":{}})", 0), {"__metadata__", "twice"}},
      {"TwiceTheType",
       fields(R"("dtype":"F32","dtype":"F16","shape":[2],"data_offsets":[0,8])", 8),
       {"'x'", "dtype", "twice"}},
      {"TwiceTheShape",
       fields(R"("dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8])", 8),
       {"'x'", "shape", "twice"}},
      {"NoType", fields(R"("shape":[2],"data_offsets":[0,8])", 8), {"'x'", "dtype", "missing"}},
      {"NoShape", fields(R"("dtype":"F32","data_offsets":[0,8])", 8), {"'x'", "shape", "missing"}},
      {"NoOffsets", fields(R"("dtype":"F32","shape":[2])", 8), {"'x'", "data_offsets", "missing"}},
      {"UnknownField", fields(R"("dtype":"F32","stride":[2],"data_offsets":[0,8])", 8), {"'x'", "stride"}},
      {"EntryIsANumber", file_of(R"({"x":7})", 0), {"'x'"}},
      {"MetadataIsNotText", file_of(R"({"__metadata__":{"a":1}})", 0), {"__metadata__"}},
      {"OffsetsOfOne", one("F32", "[2]", "[8]", 8), {"'x'", "data_offsets", "1"}},
      {"OffsetsOfThree", one("F32", "[2]", "[0,8,8]", 8), {"'x'", "data_offsets", "3"}},
      {"EndBeforeBegin", one("F32", "[2]", "[8,0]", 8), {"'x'", "8", "0"}},
      {"BeyondTheData", one("F32", "[4]", "[0,16]", 8), {"'x'", "16", "8"}},
      {"OffsetsWrap", one("F32", "[2]", "[18446744073709551612,4]", 8), {"'x'"}},
      {"Overlap",
       file_of(std::string("{") + a + std::string(",") + entry("b", "F32", "[2]", "[4,12]") + "}", 12),
       {"'b'", "overlap"}},
      {"Hole",
       file_of(std::string("{") + a + std::string(",") + entry("b", "F32", "[1]", "[12,16]") + "}", 16),
       {"'b'", "hole"}},
      {"HoleAtTheBegin", one("F32", "[1]", "[4,8]", 8), {"'x'", "hole"}},
      {"TailUncovered", file_of(std::string("{") + a + "}", 9), {"1 bytes"}},
      {"ShapeDoesNotFit", one("F32", "[3]", "[0,8]", 8), {"'x'", "12", "8"}},
      {"ShapeOverflows", one("F32", "[4294967296,4294967296,2]", "[0,8]", 8), {"'x'", "too large"}},
      {"BytesOverflow", one("F64", "[4611686018427387904]", "[0,8]", 8), {"'x'", "2^64"}},
      {"ShapeNegative", one("F32", "[-2]", "[0,8]", 8), {"'x'", "shape"}},
      {"ShapeFraction", one("F32", "[2.0]", "[0,8]", 8), {"'x'", "shape"}},
      {"ShapeHuge", one("F32", "[1e300]", "[0,8]", 8), {"'x'", "shape"}},
      {"ShapeText", one("F32", "[\"2\"]", "[0,8]", 8), {"'x'", "shape"}},
      {"ShapeLong",
       one("F32", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2]", "[0,8]", 8),
       {"'x'", "32"}},
      {"TypeUnknown", one("F4", "[4]", "[0,2]", 2), {"'x'", "F4"}},
      {"TypeNumber", fields(R"("dtype":7,"shape":[2],"data_offsets":[0,8])", 8), {"'x'", "dtype"}},
  };
}

class BrokenSafetensors : public testing::TestWithParam<Broken> {};

TEST_P(BrokenSafetensors, IsRefusedNamingThePlace) {
  try {
    read(GetParam().bytes);
    FAIL() << "taken";
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("m.safetensors"), std::string::npos) << what;
    EXPECT_LT(what.size(), 600u);
    for (const std::string& text : GetParam().mentions)
      EXPECT_NE(what.find(text), std::string::npos) << what << "\nlacks " << text;
  }
}

INSTANTIATE_TEST_SUITE_P(All, BrokenSafetensors, testing::ValuesIn(broken()),
                         [](const auto& test) { return test.param.name; });

TEST(Safetensors, EveryCutIsRefused) {
  const std::string whole = file_of(std::string("{") + entry("a", "F32", "[2]", "[0,8]") + std::string(",") +
                                        entry("b", "BF16", "[3]", "[8,14]") + "}",
                                    14);
  ASSERT_EQ(read(whole).size(), 2u);
  for (size_t size = 0; size < whole.size(); ++size) EXPECT_THROW(read(whole.substr(0, size)), Error) << size;
}

float f8(const char* type, unsigned code) {
  const auto byte = static_cast<std::byte>(code);
  float value = 0;
  find_element_type(type)->to_floats(&byte, 1, &value);
  return value;
}

// values from the tables of OCP 8-bit floating point, revision 1.0
TEST(ElementTypes, EightBitFloatsAreThoseOfTheStandard) {
  EXPECT_EQ(f8("f8_e4m3", 0x00), 0.0f);
  EXPECT_TRUE(std::signbit(f8("f8_e4m3", 0x80)));
  EXPECT_EQ(f8("f8_e4m3", 0x01), 0x1p-9f);
  EXPECT_EQ(f8("f8_e4m3", 0x07), 0.875f * 0x1p-6f);
  EXPECT_EQ(f8("f8_e4m3", 0x08), 0x1p-6f);
  EXPECT_EQ(f8("f8_e4m3", 0x38), 1.0f);
  EXPECT_EQ(f8("f8_e4m3", 0x78), 256.0f);
  EXPECT_EQ(f8("f8_e4m3", 0x7e), 448.0f);
  EXPECT_EQ(f8("f8_e4m3", 0xfe), -448.0f);
  EXPECT_TRUE(std::isnan(f8("f8_e4m3", 0x7f)) && std::isnan(f8("f8_e4m3", 0xff)));
  EXPECT_EQ(f8("f8_e5m2", 0x01), 0x1p-16f);
  EXPECT_EQ(f8("f8_e5m2", 0x03), 0.75f * 0x1p-14f);
  EXPECT_EQ(f8("f8_e5m2", 0x04), 0x1p-14f);
  EXPECT_EQ(f8("f8_e5m2", 0x3c), 1.0f);
  EXPECT_EQ(f8("f8_e5m2", 0x7b), 57344.0f);
  EXPECT_EQ(f8("f8_e5m2", 0x7c), std::numeric_limits<float>::infinity());
  EXPECT_EQ(f8("f8_e5m2", 0xfc), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(f8("f8_e5m2", 0x7d)));
}

TEST(ElementTypes, NumbersKeepTheirSignAndRound) {
  const auto one = [](const char* type, auto value) {
    float out = 0;
    find_element_type(type)->to_floats(reinterpret_cast<const std::byte*>(&value), 1, &out);
    return out;
  };
  EXPECT_EQ(one("f64", 0.1), 0.1f);
  EXPECT_EQ(one("i8", int8_t{-128}), -128.0f);
  EXPECT_EQ(one("u8", uint8_t{255}), 255.0f);
  EXPECT_EQ(one("bool", uint8_t{1}), 1.0f);
  EXPECT_EQ(one("i16", int16_t{-32768}), -32768.0f);
  EXPECT_EQ(one("i32", int32_t{16777217}), 16777216.0f);
  EXPECT_EQ(one("i64", int64_t{-1}), -1.0f);
  EXPECT_EQ(one("u64", ~uint64_t{0}), 0x1p64f);
  EXPECT_EQ(find_element_type("f32"), nullptr);
}

}  // namespace
}  // namespace nibble::models
