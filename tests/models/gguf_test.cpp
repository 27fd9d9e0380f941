// SPDX-License-Identifier: Apache-2.0
#include "models/io/gguf.h"

#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "tensor/check.h"
#include "tests/support/gguf_writer.h"

namespace nibble::models {
namespace {

using test::GgufWriter;
using test::raw;
using test::TempDir;

TEST(Gguf, ReadsEveryValueType) {
  TempDir dir;
  GgufWriter w;
  w.str("general.architecture", "llama").u8("u8", 200).u16("u16", 60000).u32("u32", 4000000000u).i32("i32", -7);
  w.u64("u64", std::numeric_limits<uint64_t>::max()).i64("i64", -(int64_t{1} << 40)).f("f32", 0.5f).f64("f64", 1e-300);
  w.raw_value("i8", GgufWriter::vi8, raw(int8_t{-3})).raw_value("i16", GgufWriter::vi16, raw(int16_t{-300}));
  w.boolean("yes", true).boolean("no", false).strs("texts", {"a", "", "ccc"});
  w.f32s("floats", std::vector<float>{1, -2.5f}).i32s("ints", std::vector<int32_t>{-1, 2});
  w.raw_value("bools", GgufWriter::varray,
              raw(uint32_t{GgufWriter::vbool}) + raw(uint64_t{2}) + std::string("\1\0", 2));
  w.save(dir / "a.gguf");
  const Gguf gguf = Gguf::open(dir / "a.gguf");
  EXPECT_EQ(gguf.version(), 3u);
  EXPECT_EQ(gguf.values().size(), w.values.size());
  EXPECT_EQ(std::get<uint64_t>(gguf.find("u8")->data), 200u);
  EXPECT_EQ(std::get<uint64_t>(gguf.find("u16")->data), 60000u);
  EXPECT_EQ(std::get<uint64_t>(gguf.find("u32")->data), 4000000000u);
  EXPECT_EQ(std::get<uint64_t>(gguf.find("u64")->data), std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(std::get<int64_t>(gguf.find("i8")->data), -3);
  EXPECT_EQ(std::get<int64_t>(gguf.find("i16")->data), -300);
  EXPECT_EQ(std::get<int64_t>(gguf.find("i32")->data), -7);
  EXPECT_EQ(std::get<int64_t>(gguf.find("i64")->data), -(int64_t{1} << 40));
  EXPECT_EQ(std::get<double>(gguf.find("f32")->data), 0.5);
  EXPECT_EQ(std::get<double>(gguf.find("f64")->data), 1e-300);
  EXPECT_TRUE(std::get<bool>(gguf.find("yes")->data));
  EXPECT_FALSE(std::get<bool>(gguf.find("no")->data));
  EXPECT_EQ(std::get<std::vector<std::string>>(gguf.find("texts")->data), (std::vector<std::string>{"a", "", "ccc"}));
  EXPECT_EQ(std::get<std::vector<double>>(gguf.find("floats")->data), (std::vector<double>{1, -2.5}));
  EXPECT_EQ(std::get<std::vector<int64_t>>(gguf.find("ints")->data), (std::vector<int64_t>{-1, 2}));
  EXPECT_EQ(std::get<std::vector<int64_t>>(gguf.find("bools")->data), (std::vector<int64_t>{1, 0}));
  EXPECT_EQ(gguf.find("absent"), nullptr);
  EXPECT_EQ(gguf.tensor("absent"), nullptr);
}

TEST(Gguf, FindsTensorsAndTheirBytes) {
  TempDir dir;
  GgufWriter w;
  w.str("general.architecture", "llama");
  w.tensor("b", {2, 3}, std::vector<float>{0, 1, 2, 3, 4, 5});
  w.tensor("a", {2, 64}, GgufWriter::q4_0, std::string(2 * 2 * 18, 'x'));
  w.tensor("nobody.asked", {1}, std::vector<float>{7});
  w.save(dir / "a.gguf");
  const Gguf gguf = Gguf::open(dir / "a.gguf");
  const GgufTensor* b = gguf.tensor("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->shape, (Shape{2, 3}));
  EXPECT_EQ(b->type->name, "f32");
  const auto bytes = gguf.bytes(*b);
  ASSERT_EQ(bytes.size(), 24u);
  EXPECT_EQ(reinterpret_cast<const float*>(bytes.data())[5], 5.0f);
  const GgufTensor* a = gguf.tensor("a");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->bytes, 72u);
  EXPECT_EQ(gguf.bytes(*a)[71], std::byte{'x'});
  EXPECT_TRUE(gguf.warnings().empty());
}

TEST(Gguf, PlainNumbersBecomeFloats) {
  TempDir dir;
  GgufWriter w;
  w.str("general.architecture", "llama");
  w.tensor("i8", {2}, 24, raw(std::array<int8_t, 2>{int8_t{-128}, 7}));
  w.tensor("i16", {2}, 25, raw(std::array<int16_t, 2>{int16_t{-32768}, 7}));
  w.tensor("i32", {2}, 26, raw(std::array<int32_t, 2>{int32_t{-65536}, 7}));
  w.tensor("i64", {2}, 27, raw(std::array<int64_t, 2>{-(int64_t{1} << 40), 7}));
  w.tensor("f64", {2}, 28, raw(std::array<double, 2>{-0.1, 7}));
  w.save(dir / "a.gguf");
  const Gguf gguf = Gguf::open(dir / "a.gguf");
  const std::pair<const char*, float> first[] = {
      {"i8", -128}, {"i16", -32768}, {"i32", -65536}, {"i64", -0x1p40f}, {"f64", -0.1f}};
  for (const auto& [name, value] : first) {
    const GgufTensor* tensor = gguf.tensor(name);
    ASSERT_NE(tensor, nullptr) << name;
    float floats[2];
    to_floats(*tensor, gguf.bytes(*tensor).data(), 2, floats);
    EXPECT_EQ(tensor->type_name(), name);
    EXPECT_EQ(floats[0], value) << name;
    EXPECT_EQ(floats[1], 7.0f) << name;
  }
}

TEST(Gguf, HonoursAlignmentAndVersionTwo) {
  TempDir dir;
  GgufWriter w;
  w.version = 2;
  w.alignment = 128;
  w.str("general.architecture", "llama").u32("general.alignment", 128);
  w.tensor("a", {1}, std::vector<float>{1}).tensor("b", {1}, std::vector<float>{2});
  w.save(dir / "a.gguf");
  const Gguf gguf = Gguf::open(dir / "a.gguf");
  EXPECT_EQ(gguf.tensor("b")->offset - gguf.tensor("a")->offset, 128u);
  EXPECT_EQ(reinterpret_cast<const float*>(gguf.bytes(*gguf.tensor("b")).data())[0], 2.0f);
}

TEST(Gguf, WarnsOfUnusedBytes) {
  TempDir dir;
  GgufWriter w;
  w.tensor("a", {1}, std::vector<float>{1});
  w.data.resize(96);
  w.tensor("b", {1}, std::vector<float>{1});
  w.data.resize(256);
  w.save(dir / "a.gguf");
  const Gguf gguf = Gguf::open(dir / "a.gguf");
  ASSERT_EQ(gguf.warnings().size(), 2u);
  EXPECT_NE(gguf.warnings()[0].find("92 unused bytes between tensors"), std::string::npos) << gguf.warnings()[0];
  EXPECT_NE(gguf.warnings()[1].find("156 unused bytes at the end"), std::string::npos) << gguf.warnings()[1];
}

/// Three shards of one tensor each.
void save_shards(const TempDir& dir, const std::function<void(int, GgufWriter&)>& change = {}) {
  for (int i = 0; i < 3; ++i) {
    GgufWriter w;
    if (i == 0) w.str("general.architecture", "llama");
    w.u16("split.no", static_cast<uint16_t>(i)).u16("split.count", 3).i32("split.tensors.count", 3);
    w.tensor(message("t", i), {1}, std::vector<float>{static_cast<float>(i)});
    if (change) change(i, w);
    w.save(dir / message("m-0000", i + 1, "-of-00003.gguf"));
  }
}

TEST(Gguf, OpensAllShards) {
  TempDir dir;
  save_shards(dir);
  const Gguf gguf = Gguf::open(dir / "m-00001-of-00003.gguf");
  ASSERT_EQ(gguf.tensors().size(), 3u);
  for (int i = 0; i < 3; ++i) {
    const GgufTensor* tensor = gguf.tensor(message("t", i));
    ASSERT_NE(tensor, nullptr);
    EXPECT_EQ(reinterpret_cast<const float*>(gguf.bytes(*tensor).data())[0], static_cast<float>(i));
  }
}

void expect_error(const std::string& path, const std::string& file, const std::string& says) {
  try {
    Gguf::open(path);
    FAIL() << "opened: " << path;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(file), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find(says), std::string::npos) << error.what() << "\nshould say: " << says;
  }
}

TEST(Gguf, RefusesShardsThatDoNotFit) {
  const std::string first = "m-00001-of-00003.gguf", second = "m-00002-of-00003.gguf", third = "m-00003-of-00003.gguf";
  TempDir dir;
  save_shards(dir);
  expect_error(dir / second, second, "open " + (dir / first));
  std::filesystem::copy_file(dir / first, dir / "plain.gguf");
  expect_error(dir / "plain.gguf", "plain.gguf", "expected a name like");
  std::filesystem::remove(dir / third);
  expect_error(dir / first, third, "");
  struct Case {
    int shard;
    const char* key;
    std::string raw;
    std::string file, says;
  };
  for (const Case& c : {Case{1, "split.no", raw(uint16_t{2}), second, "expected 1, found 2"},
                        Case{1, "split.no", raw(uint16_t{5}), second, "found 5"},
                        Case{2, "split.count", raw(uint16_t{4}), third, "expected 3, found 4"},
                        Case{0, "split.count", raw(uint16_t{0}), first, "found 0"},
                        Case{0, "split.count", raw(uint16_t{65535}), first, "found 65535"},
                        Case{0, "split.tensors.count", raw(int32_t{4}), first, "is 4, but the shards hold 3"},
                        Case{0, "split.tensors.count", raw(int32_t{-1}), first, "negative"}}) {
    save_shards(dir, [&](int i, GgufWriter& w) {
      for (auto& value : w.values)
        if (i == c.shard && value.key == c.key) value.raw = c.raw;
    });
    expect_error(dir / first, c.file, c.says);
  }
  save_shards(dir, [](int i, GgufWriter& w) { if (i == 2) w.str("general.architecture", "gptj"); });
  expect_error(dir / first, third, "another model");
  save_shards(dir, [](int i, GgufWriter& w) { if (i == 2) w.tensors[0].name = "t0"; });
  expect_error(dir / first, third, "'t0' is there twice");
  save_shards(dir, [](int i, GgufWriter& w) { if (i == 1) w.values.erase(w.values.begin()); });
  expect_error(dir / first, second, "'split.no' is missing");
}

TEST(Gguf, MetadataChecksTypesAndRanges) {
  TempDir dir;
  GgufWriter w;
  w.str("general.architecture", "llama").u32("llama.block_count", 22).f("llama.eps", 1e-5f).u64("huge", ~uint64_t{0});
  w.f("llama.nan", std::numeric_limits<float>::quiet_NaN()).boolean("flag", true).i32("llama.negative", -1);
  w.i32s("llama.per_layer", std::vector<int32_t>{1, 2}).i32s("vocabulary", std::vector<int32_t>(5000));
  w.save(dir / "a.gguf");
  const Metadata m = Gguf::open(dir / "a.gguf").metadata();
  EXPECT_EQ(m.need_int("n_layer|block_count", 1, 100), 22);
  EXPECT_EQ(m.need_int("llama.block_count", 1, 100), 22);
  EXPECT_EQ(m.get_int("absent", 5, 0, 10), 5);
  EXPECT_FLOAT_EQ(static_cast<float>(m.need_float("eps", 0, 1)), 1e-5f);
  EXPECT_EQ(m.need_float("block_count", 0, 100), 22.0);
  EXPECT_TRUE(m.get_bool("flag", false));
  EXPECT_EQ(m.need_string("general.architecture"), "llama");
  ASSERT_NE(m.find("per_layer"), nullptr);
  EXPECT_EQ(m.find("per_layer")->size(), 2u);
  EXPECT_EQ(m.find("vocabulary"), nullptr);
  EXPECT_THROW(m.need_int("block_count", 1, 21), Error);
  EXPECT_THROW(m.need_int("block_count", 23, 100), Error);
  EXPECT_THROW(m.need_int("eps", 0, 1), Error);
  EXPECT_THROW(m.need_int("absent", 0, 1), Error);
  EXPECT_THROW(m.need_int("flag", 0, 1), Error);
  EXPECT_THROW(m.need_int("huge", 0, std::numeric_limits<int64_t>::max()), Error);
  EXPECT_THROW(m.need_int("negative", 0, 10), Error);
  EXPECT_THROW(m.need_int("per_layer", 0, 10), Error);
  EXPECT_THROW(m.need_float("nan", -1e30, 1e30), Error);
  EXPECT_THROW(m.get_bool("block_count", false), Error);
  EXPECT_THROW(m.need_string("block_count"), Error);
  try {
    m.need_int("eps", 0, 1);
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("a.gguf: key 'eps': expected an integer between 0 and 1, found"),
              std::string::npos) << error.what();
  }
}

TEST(Gguf, MetadataReadsNestedConfigJson) {
  const auto json = nlohmann::json::parse(R"({"layers": 4.0, "part": 4.5, "none": null, "rope": {"factor": 8}})");
  const Metadata m(Metadata::Source::hugging_face, "config.json", "", json);
  EXPECT_EQ(m.need_int("layers", 0, 10), 4);
  EXPECT_EQ(m.need_float("rope_scaling.factor|rope.factor", 0, 10), 8.0);
  EXPECT_FALSE(m.has("none"));
  EXPECT_FALSE(m.has("layers.factor"));
  EXPECT_THROW(m.need_int("part", 0, 10), Error);
}

TEST(Gguf, PrintableHidesControlBytes) {
  EXPECT_EQ(printable("a\x1b[31m\n\xff b"), "a?[31m?? b");
  EXPECT_EQ(printable("\xc3\xa9\xe2\x82\xac"), "\xc3\xa9\xe2\x82\xac");
  EXPECT_EQ(printable("abcdef", 3), "abc...");
  EXPECT_EQ(printable("\xe2\x82\xac\xe2\x82\xac", 4), "\xe2\x82\xac...");
}

}  // namespace
}  // namespace nibble::models
