// SPDX-License-Identifier: Apache-2.0
// Importance matrices as files.
#include "models/imatrix.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "models/quantize_file.h"
#include "tensor/check.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/tiny_model.h"

namespace nibble::models {
namespace {

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

/// The old form with one entry.
std::string old_file(const std::string& name, int32_t runs, const std::vector<float>& values) {
  std::string out;
  put<int32_t>(out, 1);
  put(out, static_cast<int32_t>(name.size()));
  out += name;
  put(out, runs);
  put(out, static_cast<int32_t>(values.size()));
  for (float value : values) put(out, value);
  return out;
}

TEST(Imatrix, ReadsTheOldForm) {
  const test::TempDir dir;
  std::string bytes = old_file("blk.0.attn_q.weight", 4, {8, 0, 2});
  test::write_file(dir / "plain.dat", bytes);
  put<int32_t>(bytes, 7);
  put<int32_t>(bytes, 3);
  bytes += "txt";
  test::write_file(dir / "a.dat", bytes);
  for (const char* name : {"plain.dat", "a.dat"}) {
    const Imatrix imatrix = Imatrix::read(dir / name);
    ASSERT_EQ(imatrix.squares.size(), 1u);
    EXPECT_EQ(imatrix.squares.at("blk.0.attn_q.weight"), (std::vector<float>{2, 0, 0.5f}));
  }
  EXPECT_EQ(Imatrix::read(dir / "a.dat").chunks, 7u);
}

TEST(Imatrix, RefusesBrokenFiles) {
  const test::TempDir dir;
  const std::string good = old_file("a.weight", 1, {1, 2});
  const auto refused = [&](const std::string& bytes) {
    test::write_file(dir / "a.dat", bytes);
    EXPECT_THROW(Imatrix::read(dir / "a.dat"), Error) << bytes.size();
  };
  for (size_t size = 0; size < good.size(); ++size) refused(good.substr(0, size));
  refused(old_file("a.weight", 1, {1, -2}));
  refused(old_file("a.weight", 1, {1, std::numeric_limits<float>::quiet_NaN()}));
  refused(old_file("a.weight", -1, {1, 2}));
  std::string huge = good;
  std::memset(huge.data(), 0x7f, 4);
  refused(huge);
  EXPECT_THROW(Imatrix::read(dir / "none.dat"), Error);
  test::GgufWriter writer;
  writer.str("general.type", "imatrix");
  writer.tensor("a.weight.in_sum2", {1, 4}, std::vector<float>{1, 2, 3, 4});
  writer.save(dir / "a.gguf");
  EXPECT_THROW(Imatrix::read(dir / "a.gguf"), Error) << "no counts";
  const auto counted = [&](const std::vector<float>& sums, const std::vector<float>& counts, const std::string& says) {
    test::GgufWriter w;
    w.tensor("a.weight.in_sum2", {1, sums.size()}, sums).tensor("a.weight.counts", {counts.size()}, counts);
    w.save(dir / "a.gguf");
    try {
      Imatrix::read(dir / "a.gguf");
      ADD_FAILURE() << says;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(dir / "a.gguf"), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find(says), std::string::npos) << error.what();
    }
  };
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  counted({1, 2, 3, 4}, {1, 1, 1}, "3 counts for 4 sums of a.weight");
  counted({1, 2, nan, 4}, {1}, "a mean square of a.weight is nan");
  counted({1, 2, 3, -4}, {1}, "a mean square of a.weight is -4");
  counted({1, 2, inf, 4}, {1}, "a mean square of a.weight is inf");
  counted({1, 2, 3, 4}, {nan}, "a count of a.weight is nan");
  counted({1, 2, 3, 4}, {-1}, "a count of a.weight is -1");
}

TEST(Imatrix, ReadsTheGgufFormWithExperts) {
  const test::TempDir dir;
  test::GgufWriter writer;
  writer.str("general.type", "imatrix").u32("imatrix.chunk_count", 9).u32("imatrix.chunk_size", 512);
  writer.tensor("a.weight.in_sum2", {2, 2}, std::vector<float>{8, 4, 5, 5});
  writer.tensor("a.weight.counts", {2, 1}, std::vector<float>{4, 0});
  writer.save(dir / "a.gguf");
  const Imatrix imatrix = Imatrix::read(dir / "a.gguf");
  EXPECT_EQ(imatrix.squares.at("a.weight"), (std::vector<float>{2, 1, 1, 1}));
  EXPECT_EQ(imatrix.chunks, 9u);
  EXPECT_EQ(imatrix.chunk_tokens, 512u);
}

TEST(Imatrix, OfAModelGivesTheSameFileAsItsText) {
  const test::TempDir dir;
  test::tiny_llama(64).save(dir / "model.gguf");
  QuantizeOptions options;
  options.threads = 1;
  options.matrices = &find_quantize_type("q4_0");
  options.calibrate.threads = 1;
  options.calibrate.context = 32;
  options.calibrate.chunks = 2;
  std::string text;
  for (int i = 0; i < 200; ++i) text += "abc de ";
  options.calibration = text;
  quantize_file(dir / "model.gguf", dir / "text.gguf", options);
  const auto model = Model::load(dir / "model.gguf");
  const Calibration calibration = calibrate(model, model->tokenizer->encode(text), options.calibrate);
  const Checkpoint checkpoint = Checkpoint::open(dir / "model.gguf");
  const ModelSource source = gguf_source(checkpoint);
  make_imatrix(calibration, source, options.calibrate, 2).write(dir / "imatrix.gguf");
  const Imatrix back = Imatrix::read(dir / "imatrix.gguf");
  EXPECT_EQ(back.squares.count("blk.1.ffn_down.weight"), 1u);
  EXPECT_EQ(back.chunk_tokens, 32u);
  options.calibration.clear();
  options.importance = dir / "imatrix.gguf";
  quantize_file(dir / "model.gguf", dir / "importance.gguf", options);
  EXPECT_EQ(test::read_file(dir / "importance.gguf"), test::read_file(dir / "text.gguf"));
  options.importance.clear();
  quantize_file(dir / "model.gguf", dir / "plain.gguf", options);
  EXPECT_NE(test::read_file(dir / "plain.gguf"), test::read_file(dir / "text.gguf"));

  Imatrix other;
  other.squares["elsewhere.weight"] = {1, 2};
  EXPECT_THROW(use_imatrix(other, source), Error);
  other.squares["blk.0.attn_q.weight"] = {1, 2};
  EXPECT_THROW(use_imatrix(other, source), Error) << "of another size";
}

}  // namespace
}  // namespace nibble::models
