// SPDX-License-Identifier: Apache-2.0
// Block types against other people's numbers: the Python package gguf (tests/data/make_quant_goldens.py), and where the
// shared test data is present, ggml itself.
#include <gtest/gtest.h>

#include <cstdint>
#include <map>

#include "quant/format.h"
#include "tests/quant/files.h"

namespace nibble::quant {
namespace {

using test::read_bytes;
using test::read_floats;

const std::string goldens = NIBBLE_TEST_DATA "/quant/";
const std::string shared_data = NIBBLE_SOURCE_DIR "/../shared/data/";

std::vector<std::byte> encode(const BlockType& type, const std::vector<float>& in) {
  std::vector<std::byte> out(in.size() / static_cast<size_t>(type.block_elements) * type.block_bytes);
  for (size_t i = 0, b = 0; i < in.size(); i += static_cast<size_t>(type.block_elements), ++b) {
    type.encode(in.data() + i, out.data() + b * type.block_bytes);
  }
  return out;
}

std::vector<float> values(const BlockType& type, const std::vector<std::byte>& blocks) {
  std::vector<float> out(blocks.size() / type.block_bytes * static_cast<size_t>(type.block_elements));
  dequantize_blocks(type, blocks.data(), static_cast<int64_t>(out.size()), out.data());
  return out;
}

void expect_same_blocks(const BlockType& type, const std::vector<std::byte>& got, const std::vector<std::byte>& want) {
  ASSERT_EQ(got.size(), want.size()) << type.name;
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i], want[i]) << type.name << " block " << i / type.block_bytes << " byte " << i % type.block_bytes;
  }
}

void expect_same_values(const BlockType& type, const std::vector<float>& got, const std::vector<float>& want) {
  ASSERT_LE(want.size(), got.size()) << type.name;
  for (size_t i = 0; i < want.size(); ++i) ASSERT_EQ(got[i], want[i]) << type.name << " weight " << i;
}

TEST(QuantGolden, ValuesMatchThePythonPackage) {
  int checked = 0;
  for (const BlockType* type : all_block_types()) {
    const auto blocks = read_bytes(goldens + std::string(type->name) + ".blocks.bin");
    if (blocks.empty()) continue;
    const auto want = read_floats(goldens + std::string(type->name) + ".values.bin");
    ASSERT_EQ(want.size(), 1024u) << type->name;
    expect_same_values(*type, values(*type, blocks), want);
    ++checked;
  }
  EXPECT_EQ(checked, 25);
}

TEST(QuantGolden, BlocksMatchThePythonPackage) {
  const auto weights = read_floats(goldens + "weights.f32.bin");
  ASSERT_EQ(weights.size(), 1024u);
  int checked = 0;
  for (const BlockType* type : all_block_types()) {
    const auto want = read_bytes(goldens + std::string(type->name) + ".encoded.bin");
    if (want.empty()) continue;
    expect_same_blocks(*type, encode(*type, weights), want);
    ++checked;
  }
  EXPECT_EQ(checked, 10);
}

TEST(QuantGolden, BlocksAndValuesMatchGgml) {
  const std::string folder = shared_data + "quant-golden/";
  const auto weights = read_floats(folder + "weights.f32.bin");
  if (weights.empty()) GTEST_SKIP() << "no " << folder;
  int encoded = 0, decoded = 0;
  for (const BlockType* type : all_block_types()) {
    std::string name(type->name);
    if (name.ends_with("_k")) name.back() = 'K';
    const auto blocks = read_bytes(folder + name + ".blocks.bin");
    if (blocks.empty()) continue;
    expect_same_values(*type, values(*type, blocks), read_floats(folder + name + ".dequant_rows0-15.f32.bin"));
    ++decoded;
    if (type->encode == nullptr) continue;
    expect_same_blocks(*type, encode(*type, weights), blocks);
    ++encoded;
  }
  EXPECT_EQ(decoded, 14);
  EXPECT_EQ(encoded, 7);
}

struct FileTensor {
  uint32_t type = 0;
  std::vector<std::byte> data;
};

// ggmf v100: header of six int32; tensors: dims, key length, type, sizes, key, data.
std::map<std::string, FileTensor> read_ggmf(const std::string& path) {
  const auto bytes = read_bytes(path);
  std::map<std::string, FileTensor> tensors;
  size_t at = 6 * 4;
  const auto number = [&] {
    uint32_t value;
    std::memcpy(&value, bytes.data() + at, 4);
    at += 4;
    return value;
  };
  while (at < bytes.size()) {
    const uint32_t dims = number(), key = number();
    FileTensor tensor{.type = number(), .data = {}};
    size_t elements = 1;
    for (uint32_t d = 0; d < dims; ++d) elements *= number();
    const std::string name(reinterpret_cast<const char*>(bytes.data() + at), key);
    at += key;
    const BlockType* type = find_block_type(tensor.type == 7 ? 6 : tensor.type == 8 ? 7 : tensor.type);
    const size_t size = elements / static_cast<size_t>(type->block_elements) * type->block_bytes;
    tensor.data.assign(bytes.begin() + static_cast<int64_t>(at), bytes.begin() + static_cast<int64_t>(at + size));
    at += size;
    tensors[name] = std::move(tensor);
  }
  return tensors;
}

TEST(QuantGolden, RebuildsRealQ5Files) {
  const std::string folder = shared_data + "models/rwkv-4v0-660K/tiny-rwkv-4v0-660K-";
  const auto source = read_ggmf(folder + "FP32.bin");
  if (source.empty()) GTEST_SKIP() << "no " << folder;
  const std::map<std::string, uint32_t> files = {{"Q5_0", 6}, {"Q5_1", 7}, {"FP16", 1}};
  for (const auto& [name, id] : files) {
    int checked = 0;
    for (const auto& [key, tensor] : read_ggmf(folder + name + ".bin")) {
      if (tensor.type == 0) continue;
      const FileTensor& from = source.at(key);
      std::vector<float> floats(from.data.size() / 4);
      std::memcpy(floats.data(), from.data.data(), from.data.size());
      const BlockType& type = *find_block_type(id);
      expect_same_blocks(type, encode(type, floats), tensor.data);
      ++checked;
    }
    EXPECT_GT(checked, 10) << name;
  }
}

}  // namespace
}  // namespace nibble::quant
