// SPDX-License-Identifier: Apache-2.0
// Hostile GGUF files: each is refused with an error that names the file and the key or tensor, or reads without harm.
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include <sys/stat.h>

#include "models/arch.h"
#include "models/io/gguf.h"
#include "tensor/check.h"
#include "tests/support/cpu_time.h"
#include "tests/support/gguf_writer.h"

namespace nibble::models {
namespace {

using test::GgufWriter;
using test::raw;
using test::raw_string;
using test::TempDir;

constexpr uint64_t two63 = uint64_t{1} << 63, all_ones = ~uint64_t{0};

/// A well-formed file with every kind of record; the cases break it in one place.
GgufWriter small() {
  GgufWriter w;
  w.str("general.architecture", "llama").u32("llama.block_count", 1).boolean("flag", true);
  w.strs("texts", {"one", "two"}).f32s("floats", std::vector<float>{1, 2});
  w.tensor("first", {2, 4}, std::vector<float>(8, 1.0f));
  w.tensor("second", {1, 256}, GgufWriter::q4_0, std::string(8 * 18, '\0'));
  return w;
}

struct Case {
  const char* name;
  std::function<void(GgufWriter&)> change;
  const char* says;
};

std::string error_of(const std::string& path) {
  try {
    Gguf::open(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

void expect_refused(const std::vector<Case>& cases) {
  TempDir dir;
  const std::string path = dir / "bad.gguf";
  small().save(path);
  ASSERT_EQ(error_of(path), "") << "the unchanged file must open";
  for (const Case& c : cases) {
    GgufWriter w = small();
    c.change(w);
    w.save(path);
    const std::string error = error_of(path);
    EXPECT_NE(error, "") << c.name << ": opened";
    EXPECT_NE(error.find("bad.gguf"), std::string::npos) << c.name << ": " << error;
    EXPECT_NE(error.find(c.says), std::string::npos) << c.name << ": " << error << "\nshould say: " << c.says;
  }
}

TEST(GgufMalformed, HeaderIsRefused) {
  expect_refused({
      {"bad magic", [](auto& w) { w.magic = "GGML"; }, "found 'GGML'"},
      {"version 0", [](auto& w) { w.version = 0; }, "GGUF version 0"},
      {"version 1", [](auto& w) { w.version = 1; }, "GGUF version 1"},
      {"version 99", [](auto& w) { w.version = 99; }, "GGUF version 99"},
      {"big endian", [](auto& w) { w.version = 0x03000000; }, "big-endian"},
      {"2^63 tensors", [](auto& w) { w.tensor_count = two63; }, "9223372036854775808 tensors"},
      {"-1 tensors", [](auto& w) { w.tensor_count = all_ones; }, "18446744073709551615 tensors"},
      {"2^32 tensors", [](auto& w) { w.tensor_count = uint64_t{1} << 32; }, "4294967296 tensors"},
      {"one tensor more", [](auto& w) { w.tensor_count = 3; }, "tensor 2"},
      {"2^63 keys", [](auto& w) { w.value_count = two63; }, "9223372036854775808 keys"},
      {"-1 keys", [](auto& w) { w.value_count = all_ones; }, "18446744073709551615 keys"},
      {"2^32 keys", [](auto& w) { w.value_count = uint64_t{1} << 32; }, "4294967296 keys"},
  });
}

TEST(GgufMalformed, WhatIsNoFileIsRefused) {
  TempDir dir;
  const std::string empty = dir / "empty.gguf", fifo = dir / "fifo.gguf";
  test::write_file(empty, "");
  EXPECT_NE(error_of(empty).find("empty"), std::string::npos) << error_of(empty);
  EXPECT_NE(error_of(dir.path()).find(dir.path()), std::string::npos);
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_NE(error_of(fifo).find("fifo.gguf"), std::string::npos);
  EXPECT_NE(error_of("/dev/zero").find("/dev/zero"), std::string::npos);
  EXPECT_NE(error_of(dir / "absent.gguf").find("absent.gguf"), std::string::npos);
}

TEST(GgufMalformed, KeysAndValuesAreRefused) {
  const auto array = [](uint32_t type, uint64_t count, std::string rest = "") {
    return [=](GgufWriter& w) { w.raw_value("odd", GgufWriter::varray, raw(type) + raw(count) + rest); };
  };
  const auto alignment = [](uint32_t type, std::string bytes) {
    return [=](GgufWriter& w) { w.raw_value("general.alignment", type, bytes); };
  };
  expect_refused({
      {"key of 2^63 bytes", [](auto& w) { w.values[1].key_bytes = two63; }, "key 1"},
      {"key past the end", [](auto& w) { w.values[1].key_bytes = 5000; }, "key 1"},
      {"key of 2^64 - 1 bytes", [](auto& w) { w.values[1].key_bytes = all_ones; }, "key 1"},
      {"empty key", [](auto& w) { w.u32("", 1); }, "the key is empty"},
      {"key above 64 KiB", [](auto& w) { w.u32(std::string(65537, 'k'), 1); }, "65537 bytes"},
      {"key not UTF-8", [](auto& w) { w.u32("a\xff", 1); }, "'a?' is not UTF-8"},
      {"key with NUL", [](auto& w) { w.u32(std::string_view("a\0b", 3), 1); }, "'a?b' is not UTF-8"},
      {"key twice", [](auto& w) { w.u32("llama.block_count", 2); }, "'llama.block_count' is there twice"},
      {"value type 13", [](auto& w) { w.values[1].type = 13; }, "'llama.block_count' (byte"},
      {"value type 2^31", [](auto& w) { w.values[1].type = 1u << 31; }, "value type 2147483648"},
      {"array of arrays", array(GgufWriter::varray, 1, raw(uint32_t{4}) + raw(uint64_t{0})), "'odd'"},
      {"array of type 13", array(13, 1, "abcd"), "value type 13"},
      {"array of 2^61 u64", array(GgufWriter::vu64, uint64_t{1} << 61), "2305843009213693952 elements of type u64"},
      {"array of 2^61 strings", array(GgufWriter::vstring, uint64_t{1} << 61), "elements of type string"},
      {"array of 2^64 - 1 bytes", array(GgufWriter::vu8, all_ones), "elements of type u8"},
      {"string array too long", array(GgufWriter::vstring, 2, raw_string("a") + raw(all_ones)), "'odd'"},
      {"bool array of 2", array(GgufWriter::vbool, 2, "\1\2"), "bool array element 2"},
      {"u64 array above 2^63", array(GgufWriter::vu64, 1, raw(two63)), "above 2^63"},
      {"string of 2^64 - 1 bytes", [](auto& w) { w.values[0].raw = raw(all_ones); }, "'general.architecture'"},
      {"string past the end", [](auto& w) { w.values[0].raw = raw(uint64_t{100000}); },
       "the length of the string is 100000"},
      {"bool 2", [](auto& w) { w.values[2].raw = "\2"; }, "bool value 2"},
      {"alignment 0", alignment(GgufWriter::vu32, raw(uint32_t{0})), "'general.alignment' (byte"},
      {"alignment 3", alignment(GgufWriter::vu32, raw(uint32_t{3})), "alignment 3"},
      {"alignment 48", alignment(GgufWriter::vu32, raw(uint32_t{48})), "alignment 48"},
      {"alignment 2^31", alignment(GgufWriter::vu32, raw(uint32_t{1} << 31)), "alignment 2147483648"},
      {"alignment u64", alignment(GgufWriter::vu64, raw(uint64_t{32})), "expected type u32, found u64"},
      {"alignment string", alignment(GgufWriter::vstring, raw_string("32")), "expected type u32, found string"},
  });
}

TEST(GgufMalformed, TensorsAreRefused) {
  const auto second = [](std::function<void(GgufWriter::TensorInfo&)> change) {
    return [change](GgufWriter& w) { change(w.tensors[1]); };
  };
  const auto sizes = [&](std::vector<uint64_t> s) {
    return second([s](auto& t) { t.sizes = s, t.rank = static_cast<uint32_t>(s.size()); });
  };
  const auto type = [&](uint32_t id) { return second([id](auto& t) { t.type = id; }); };
  expect_refused({
      {"no dimensions", sizes({}), "'second' (byte"},
      {"5 dimensions", sizes({32, 1, 1, 1, 1}), "5 dimensions"},
      {"2^32 - 1 dimensions", second([](auto& t) { t.rank = 0xffffffff; }), "4294967295 dimensions"},
      {"dimension 0", sizes({256, 0}), "dimension 1 is 0"},
      {"dimension -2^63", sizes({256, two63}), "dimension 1 is -9223372036854775808"},
      {"dimension -1", sizes({all_ones, 1}), "dimension 0 is -1"},
      {"product wraps to 0", sizes({uint64_t{1} << 32, uint64_t{1} << 32}), "product is above"},
      {"product wraps to 256", sizes({256, (uint64_t{1} << 56) + 1}), "product is above"},
      {"bytes wrap", [](auto& w) { w.tensors[0].sizes = {uint64_t{1} << 62, 1}; }, "2^64"},
      {"bytes beyond the file", sizes({256, 2}), "reach beyond the file"},
      {"rows of 255", sizes({255, 1}), "expected a multiple of 32"},
      {"rows of 255, q4_k", second([](auto& t) { t.type = GgufWriter::q4_k, t.sizes[0] = 255; }), "a multiple of 256"},
      {"type 4", type(4), "type q4_2 (id 4) was removed"},
      {"type 31", type(31), "type q4_0_4_4 (id 31) was removed"},
      {"type 36", type(36), "type iq4_nl_4_4 (id 36) was removed"},
      {"type 9", type(9), "type q8_1 (id 9) is for activations"},
      {"type 15", type(15), "type q8_k (id 15) is for activations"},
      {"type 43", type(43), "unknown type id 43"},
      {"type 2^31", type(1u << 31), "unknown type id 2147483648"},
      {"offset not aligned", second([](auto& t) { t.offset = 36; }), "offset 36 is not a multiple"},
      {"offset beyond the file", second([](auto& t) { t.offset = 1 << 20; }), "reach beyond the file"},
      {"offset wraps", second([](auto& t) { t.offset = all_ones - 31; }), "reach beyond the file"},
      {"same place", second([](auto& t) { t.offset = 0; }), "overlaps tensor 'first'"},
      {"same name", second([](auto& t) { t.name = "first", t.name_bytes = 5; }), "'first' is there twice"},
      {"empty name", second([](auto& t) { t.name = "", t.name_bytes = 0; }), "tensor 1"},
      {"name of 64 bytes", second([](auto& t) { t.name = std::string(64, 'n'), t.name_bytes = 64; }), "has 64 bytes"},
      {"name past the end", second([](auto& t) { t.name_bytes = two63; }), "tensor 1"},
      {"name not UTF-8", second([](auto& t) { t.name[0] = '\xff'; }), "'?econd' is not UTF-8"},
      {"data cut by a byte", [](auto& w) { w.data.pop_back(); }, "tensor 'second'"},
      {"partial overlap", [](auto& w) { w.tensors[0].sizes = {9, 1}; }, "overlaps tensor 'first'"},
  });
}

TEST(GgufMalformed, ArchitectureIsChecked) {
  TempDir dir;
  const auto metadata_error = [&](const GgufWriter& w) -> std::string {
    w.save(dir / "bad.gguf");
    try {
      find_arch(Gguf::open(dir / "bad.gguf").metadata().need_string("general.architecture"));
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(metadata_error(GgufWriter().u32("a", 1)).find("'general.architecture' is missing"), std::string::npos);
  EXPECT_NE(metadata_error(GgufWriter().u32("general.architecture", 1)).find("expected a string, found u32"),
            std::string::npos);
  EXPECT_NE(metadata_error(GgufWriter().str("general.architecture", "no-such")).find("unknown architecture 'no-such'"),
            std::string::npos);
}

TEST(GgufMalformed, EveryTruncationIsRefused) {
  TempDir dir;
  const std::string bytes = small().bytes(), path = dir / "cut.gguf";
  for (size_t size = 0; size < bytes.size(); ++size) {
    test::write_file(path, std::string_view(bytes).substr(0, size));
    const std::string error = error_of(path);
    ASSERT_NE(error.find("cut.gguf"), std::string::npos)
        << size << " of " << bytes.size() << " bytes: '" << error << "'";
  }
}

TEST(GgufMalformed, ChangedBytesNeverHarm) {
  TempDir dir;
  const GgufWriter writer = small();
  const std::string good = writer.bytes(), path = dir / "changed.gguf";
  const size_t header = writer.boundaries().back();
  int refused = 0;
  for (size_t at = 0; at < header; ++at)
    for (const int value : {0x00, 0x7f, 0x80, 0xff, good[at] ^ 1, good[at] + 1}) {
      std::string bad = good;
      bad[at] = static_cast<char>(value);
      test::write_file(path, bad);
      refused += !error_of(path).empty();
    }
  EXPECT_GT(refused, static_cast<int>(header));
}

TEST(GgufMalformed, ManyKeysTakeLittleTime) {
  TempDir dir;
  GgufWriter w;
  const auto name = [](const char* letter, int i) { return std::string(letter).append(std::to_string(i)); };
  for (int i = 0; i < 50000; ++i) w.u8(name("k", i), 1);
  for (int i = 0; i < 20000; ++i) w.tensor(name("t", i), {1}, std::vector<float>{1});
  w.save(dir / "many.gguf");
  const double begin = test::cpu_seconds();
  const Gguf gguf = Gguf::open(dir / "many.gguf");
  for (int i = 0; i < 50000; ++i) ASSERT_NE(gguf.find(name("k", i)), nullptr);
  const double seconds = test::cpu_seconds() - begin;
  EXPECT_EQ(gguf.tensors().size(), 20000u);
  // About 0.1 s; comparing every key with every other would be 1.25e9 string comparisons for the keys alone.
  EXPECT_LT(seconds, 3.0);
}

TEST(GgufMalformed, PublicCorporaNeverHarm) {
  const std::filesystem::path data = NIBBLE_SOURCE_DIR "/../shared/data";
  if (!std::filesystem::exists(data / "gguf-fuzz")) GTEST_SKIP() << "no test data at " << data;
  int files = 0;
  for (const char* folder : {"gguf", "gguf/bitnet-rs", "gguf-fuzz"})
    for (const auto& entry : std::filesystem::directory_iterator(data / folder)) {
      if (!entry.is_regular_file()) continue;
      ++files;
      const std::string error = error_of(entry.path().string());
      EXPECT_TRUE(error.empty() || error.find(entry.path().filename().string()) != std::string::npos) << error;
    }
  EXPECT_GT(files, 100);
  EXPECT_EQ(error_of((data / "gguf/test-le-v3.gguf").string()), "");
  EXPECT_EQ(error_of((data / "gguf/weightless-tiny.gguf").string()), "");
  EXPECT_NE(error_of((data / "gguf/test-be-v3.gguf").string()).find("big-endian"), std::string::npos);
  const Gguf le = Gguf::open((data / "gguf/test-le-v3.gguf").string());
  ASSERT_NE(le.tensor("tensor3"), nullptr);
  EXPECT_EQ(reinterpret_cast<const float*>(le.bytes(*le.tensor("tensor3")).data())[95], 102.0f);
}

}  // namespace
}  // namespace nibble::models
