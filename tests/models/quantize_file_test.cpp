// SPDX-License-Identifier: Apache-2.0
// Model files rewritten in fewer bits, and how our own block types stand in GGUF.
#include "models/quantize_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>
#include <tuple>

#include "models/generate.h"
#include "models/io/gguf_writer.h"
#include "models/perplexity.h"
#include "tensor/check.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/tiny_model.h"

namespace nibble::models {
namespace {

const std::string austen = NIBBLE_SOURCE_DIR "/models/tiny/austen.gguf";

std::string error_of(const std::string& path) {
  try {
    Gguf::open(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(QuantizeFile, KeepsKeysAndReadsBackAsTheTypesItWrote) {
  const test::TempDir dir;
  QuantizeOptions options;
  options.threads = 1;
  options.matrices = &find_quantize_type("q4_g64");
  options.embedding = &find_quantize_type("q6_g64");
  const QuantizeReport report = quantize_file(austen, dir / "small.gguf", options);
  const Gguf before = Gguf::open(austen), after = Gguf::open(dir / "small.gguf");
  EXPECT_GT(report.quantised, 0);
  EXPECT_LT(report.bytes_out, report.bytes_in);
  EXPECT_LT(report.squared_error, 0.02 * report.squares);
  ASSERT_EQ(after.tensors().size(), before.tensors().size());
  EXPECT_TRUE(after.warnings().empty());
  int own = 0;
  for (const GgufTensor& tensor : after.tensors()) {
    EXPECT_EQ(tensor.shape, before.tensor(tensor.name)->shape);
    own += quant::find_native_type(tensor.type_name()) != nullptr;
  }
  EXPECT_EQ(own, report.quantised);
  for (const auto& [key, value] : before.values()) {
    if (key == "general.file_type" || key == "general.alignment") continue;
    ASSERT_NE(after.find(key), nullptr) << key;
    EXPECT_EQ(after.find(key)->data, value.data) << key;
    EXPECT_EQ(after.find(key)->type, value.type) << key;
  }
  Engine engine(Model::load(dir / "small.gguf"), {.threads = 1});
  GenerateOptions generate;
  generate.sampler.temperature = 0;
  generate.max_tokens = 2;
  EXPECT_EQ(Session(engine).generate(engine.model().tokenizer->encode("It was"), generate).generated_tokens, 2);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1) << "nothing is left but the file";
}

TEST(QuantizeFile, CalibratesOnAText) {
  const test::TempDir dir;
  test::tiny_llama().save(dir / "model.gguf");
  std::string text;
  for (int i = 0; i < 200; ++i) text += "abc de ";
  CalibrateOptions options;
  options.threads = 1;
  options.context = 32;
  options.chunks = 2;
  options.feedback_inputs = 32;
  const auto model = Model::load(dir / "model.gguf");
  const Calibration calibration = calibrate(model, model->tokenizer->encode(text), options);
  for (const char* name : {"blk.0.q.weight", "blk.1.down.weight", "embedding.weight"}) {
    const auto found = calibration.find(name);
    ASSERT_NE(found, calibration.end()) << name;
    const bool down = std::string_view(name).find("down") != std::string_view::npos;
    EXPECT_EQ(found->second->squares.size(), down ? 48u : 32u);
    EXPECT_EQ(found->second->feedback.size(), down ? 0u : 32u * 32u) << "only of inputs small enough";
    for (float square : found->second->squares) EXPECT_GE(square, 0);
  }
  EXPECT_EQ(calibration.find("blk.0.q.weight")->second, calibration.find("blk.0.k.weight")->second)
      << "they read the same";
  EXPECT_THROW(calibrate(model, std::vector<int32_t>(31, 5), options), Error);
}

TEST(QuantizeFile, CalibratesOnAllOfAText) {
  const test::TempDir dir;
  test::tiny_llama().save(dir / "model.gguf");
  const auto model = Model::load(dir / "model.gguf");
  constexpr int context = 8;
  std::vector<int32_t> tokens, taken;
  for (int i = 0; i < 200 * context; ++i) tokens.push_back(3 + i * 7 % 11);
  const auto squares = [&](const std::vector<int32_t>& text, CalibrateOptions options) {
    options.threads = 1;
    options.context = context;
    int chunks = 0;
    const Calibration all = calibrate(model, text, options, [&](int, int total) { chunks = total; });
    return std::pair(all.find("blk.1.q.weight")->second->squares, chunks);
  };
  for (const size_t begin : {0, 96, 192})  // the first, the middle and the last of 25 * 8 tokens
    taken.insert(taken.end(), tokens.begin() + static_cast<ptrdiff_t>(begin),
                 tokens.begin() + static_cast<ptrdiff_t>(begin + context));
  const std::vector<int32_t> some(tokens.begin(), tokens.begin() + 200);
  EXPECT_EQ(squares(some, {.chunks = 3}), squares(taken, {.chunks = 3}));
  EXPECT_NE(squares(some, {.chunks = 3}).first, squares(some, {.chunks = 2}).first);
  EXPECT_EQ(squares(some, {}).second, 25) << "no more than there are";
  EXPECT_EQ(squares(tokens, {}).second, 32);
  EXPECT_EQ(squares(tokens, {.feedback_inputs = 32}).second, 128);
}

TEST(QuantizeFile, CalibrationBeginsChunksAsPromptsBegin) {
  const test::TempDir dir;
  test::tiny_llama().save(dir / "model.gguf");
  const auto model = Model::load(dir / "model.gguf");
  ASSERT_EQ(first_token(*model), model->tokenizer->bos());
  std::vector<int32_t> tokens;
  for (int i = 0; i < 64; ++i) tokens.push_back(3 + i * 7 % 11);
  const CalibrateOptions options{.threads = 1, .context = 16, .chunks = 4};
  const auto squares = [&] { return calibrate(model, tokens, options).find("blk.1.q.weight")->second->squares; };
  const std::vector<float> before = squares();
  tokens[16] = 4, tokens[48] = 5;
  EXPECT_EQ(squares(), before) << "BOS stands in their place";
  tokens[17] = 4;
  EXPECT_NE(squares(), before);
}

TEST(QuantizeFile, FeedbackIsTheFactorOfTheInputsMoments) {
  const test::TempDir dir;
  test::tiny_llama(40).save(dir / "model.gguf");  // not a whole number of the panels that moments are summed in
  const auto model = Model::load(dir / "model.gguf");
  std::vector<int32_t> tokens;
  std::vector<Row> rows;
  for (int i = 0; i < 66; ++i) tokens.push_back(3 + i * i % 13);
  tokens[0] = tokens[33] = model->tokenizer->bos();
  std::map<std::string, std::vector<float>> inputs;
  Engine engine(model, {.threads = 2, .context = 33});
  engine.set_tap([&](std::span<const std::string> weights, const Tensor& x) {
    EXPECT_EQ(x.desc.shape[0], 33) << weights.front();
    inputs[weights.front()].insert(inputs[weights.front()].end(), x.as<float>(),
                                   x.as<float>() + x.desc.shape.elements());
  });
  for (int i = 0; i < 66; ++i) {
    rows.push_back({tokens[static_cast<size_t>(i)], i % 33, 0, true});
    if (i % 33 != 32) continue;
    EXPECT_TRUE(engine.run(rows).empty()) << "tapped engines give no logits";
    rows.clear();
  }
  const Calibration calibration =
      calibrate(model, tokens, {.threads = 2, .context = 33, .chunks = 2, .feedback_inputs = 64});
  for (const char* name : {"blk.0.q.weight", "blk.1.down.weight", "embedding.weight"}) {
    const quant::InputStatistics& found = *calibration.find(name)->second;
    const std::vector<float>& x = inputs.at(name);
    const size_t k = x.size() / 66;
    std::vector<float> moments(k * k);
    for (size_t r = 0; r < 66; ++r)
      for (size_t i = 0; i < k; ++i)
        for (size_t j = 0; j < k; ++j)
          moments[i * k + j] += (i == j ? 1 : 0.7f) * x[r * k + i] * x[r * k + j] / 66;
    for (size_t i = 0; i < k; ++i)
      EXPECT_NEAR(found.squares[i], moments[i * k + i], 1e-5f * moments[i * k + i]) << name;
    EXPECT_EQ(quant::order_moments(moments, static_cast<int64_t>(k)), found.order) << name;
    ASSERT_TRUE(quant::factor_feedback(moments, static_cast<int64_t>(k), 0.01));
    float largest = 0;
    for (float value : moments) largest = std::max(largest, std::abs(value));
    for (size_t i = 0; i < moments.size(); ++i)
      ASSERT_NEAR(found.feedback[i], moments[i], 1e-4f * largest) << name << " " << i / k << ", " << i % k;
  }
}

TEST(QuantizeFile, RefusesUnknownTypesAndLeavesNothing) {
  EXPECT_THROW(find_quantize_type("iq2_xxs"), Error);
  EXPECT_THROW(find_quantize_type("q9_0"), Error);
  const test::TempDir dir;
  EXPECT_THROW(quantize_file(dir / "none.gguf", dir / "out.gguf", {}), Error);
  EXPECT_FALSE(std::filesystem::exists(dir / "out.gguf"));
}

TEST(QuantizeFile, RulesChooseByName) {
  EXPECT_TRUE(parse_type_rule("blk.*.ffn_down=q6_k").matches("blk.11.ffn_down.weight"));
  EXPECT_TRUE(parse_type_rule("blk.?.ffn_down.weight=q6_k").matches("blk.1.ffn_down.weight"));
  EXPECT_FALSE(parse_type_rule("blk.?.ffn_down=q6_k").matches("blk.11.ffn_down.weight"));
  EXPECT_FALSE(parse_type_rule("ffn_down=q6_k").matches("blk.1.ffn_down.weight"));
  EXPECT_EQ(parse_type_rule("*=keep").type, nullptr);
  for (const char* bad : {"", "=q4_0", "blk.*", "blk.*=", "blk.*=q4_9", "*****=q4_0"})
    EXPECT_THROW(parse_type_rule(bad), Error) << bad;

  QuantizeOptions options;
  options.matrices = &find_quantize_type("q4_k");
  options.embedding = options.output = &find_quantize_type("q8_0");
  options.rules = {parse_type_rule("blk.0.ffn_down=q6_k"), parse_type_rule("blk.*.ffn_*=keep")};
  const QuantizeReport plan = plan_quantize(austen, options);
  const Gguf before = Gguf::open(austen);
  for (const PlannedTensor& t : plan.tensors) {
    const bool wide = t.shape[-1] % 256 == 0;
    std::string_view expected = t.from->name;
    if (t.name == "blk.0.ffn_down.weight") expected = wide ? "q6_k" : "q8_0";
    else if (t.matrix && t.name.find("ffn_") == std::string::npos)
      expected = !t.name.starts_with("blk.") ? "q8_0" : wide ? "q4_k" : "q5_0";
    EXPECT_EQ(t.to->name, expected) << t.name;
    EXPECT_EQ(t.bytes_in, before.tensor(t.name)->bytes);
    EXPECT_EQ(t.bytes_out, static_cast<uint64_t>(t.shape.elements() / t.to->block_elements) * t.to->block_bytes);
  }
  options.rules = {parse_type_rule("blk.99.*=q6_k")};
  EXPECT_THROW(plan_quantize(austen, options), Error) << "a rule that matches nothing is a mistake";
}

/// Everything that a file says, but for where its tensors stand.
void expect_same(const Gguf& a, const Gguf& b) {
  for (const auto& [key, value] : a.values()) {
    if (key.starts_with("split.")) continue;
    ASSERT_NE(b.find(key), nullptr) << key;
    EXPECT_EQ(b.find(key)->type, value.type) << key;
    EXPECT_EQ(b.find(key)->element, value.element) << key;
    EXPECT_EQ(b.find(key)->data, value.data) << key;
  }
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  for (const GgufTensor& tensor : a.tensors()) {
    const GgufTensor* other = b.tensor(tensor.name);
    ASSERT_NE(other, nullptr) << tensor.name;
    EXPECT_EQ(other->type_name(), tensor.type_name());
    EXPECT_EQ(other->shape, tensor.shape);
    const auto x = a.bytes(tensor), y = b.bytes(*other);
    EXPECT_TRUE(std::equal(x.begin(), x.end(), y.begin(), y.end())) << tensor.name;
  }
}

TEST(QuantizeFile, CopiesEveryKeyAndByteAndSplitsAndMerges) {
  const test::TempDir dir;
  test::GgufWriter writer = test::tiny_llama();
  writer.u8("odd.u8", 200)
      .i64("odd.i64", -5)
      .f64("odd.f64", 0.1)
      .boolean("odd.bool", true)
      .u32("general.alignment", 64)
      .u32("general.file_type", 7);
  writer.tensor("numbers", {2, 3}, 24, "abcdef");
  writer.save(dir / "in.gguf");
  quantize_file(dir / "in.gguf", dir / "out.gguf", {});
  const Gguf in = Gguf::open(dir / "in.gguf"), out = Gguf::open(dir / "out.gguf");
  expect_same(in, out);
  EXPECT_EQ(out.values().size(), in.values().size());

  QuantizeOptions options;
  options.split_bytes = 20000;
  quantize_file(dir / "in.gguf", dir / "split.gguf", options);
  EXPECT_FALSE(std::filesystem::exists(dir / "split.gguf"));
  std::string first;
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir.path())) {
    const std::string name = entry.path().filename().string();
    files += name.starts_with("split-");
    if (name.starts_with("split-00001-of-")) first = entry.path().string();
  }
  EXPECT_GT(files, 2);
  expect_same(in, Gguf::open(first));
  quantize_file(first, dir / "merged.gguf", {});
  EXPECT_EQ(test::read_file(dir / "merged.gguf"), test::read_file(dir / "out.gguf"));
}

std::vector<float> values_of(const Gguf& file, const GgufTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.shape.elements()));
  quant::dequantize_blocks(*tensor.type, file.bytes(tensor).data(), tensor.shape.elements(), values.data());
  return values;
}

TEST(QuantizeFile, WritesScalesOfEightBitsAndOfWholeRows) {
  const Gguf before = Gguf::open(austen);
  const std::string name = "blk.0.ffn_gate.weight";
  const GgufTensor& source = *before.tensor(name);
  const std::vector<float> want = values_of(before, source);
  const int64_t k = source.shape[-1];
  // The widest step as a part of the peak; its square over 12 is what rounding to nearest adds. Floats of 8 bits have
  // steps of an eighth of the weight, or a quarter.
  const std::pair<const char*, double> kinds[] = {
      {"int8:g32:fp8", 1.0 / 127},    {"int4:g64:fp8", 1.0 / 7},   {"int3:g32:asym:fp8", 2.0 / 7},
      {"nf4:g64:fp8", 0.304},         {"int8:row", 1.0 / 127},     {"int8:row:asym:bf16", 2.0 / 255},
      {"int6:row:sym:fp8", 1.0 / 31}, {"nf4:row:f32", 0.304},      {"fp8_e4m3", 0.125},
      {"fp8_e5m2:row:bf16", 0.25},    {"int5:g128:asym", 2.0 / 31},
      {"fp8_e4m3:g64:fp8", 0.125},    {"fp8_e5m2:row:fp8", 0.25}};
  float peak = 0;
  double sum = 0;
  for (const float x : want) peak = std::max(peak, std::fabs(x)), sum += double{x} * double{x};
  const double spread = double{peak} / std::sqrt(sum / static_cast<double>(want.size()));
  for (const auto& [spec, step] : kinds) {
    const test::TempDir dir;
    // a scale of fp8 makes a step a sixteenth wider at most
    const double bound = step * (spec[0] == 'f' ? 1 : spread) / std::sqrt(12) * 17 / 16;
    QuantizeOptions options;
    options.threads = 1;
    options.matrices = &find_quantize_type(spec);
    const QuantizeReport report = quantize_file(austen, dir / "out.gguf", options);
    const Gguf after = Gguf::open(dir / "out.gguf");
    const GgufTensor& tensor = *after.tensor(name);
    const bool whole =
        std::string_view(spec).find("row") != std::string_view::npos || std::string_view(spec) == "fp8_e4m3";
    EXPECT_NE(quant::find_native_type(tensor.type->name), nullptr) << spec;
    EXPECT_EQ(tensor.shape, source.shape);
    const std::vector<float> got = values_of(after, tensor);
    double error = 0, squares = 0;
    for (size_t i = 0; i < got.size(); ++i)
      error += std::pow(double{got[i]} - want[i], 2), squares += std::pow(double{want[i]}, 2);
    EXPECT_LT(std::sqrt(error / squares), bound) << spec;
    EXPECT_GT(report.squared_error, error) << spec << ": that of all matrices";
    const auto blocks = after.bytes(tensor);
    quant::BlockCodes first{}, other{};
    std::set<float> scales;
    for (int64_t j = 0; j < k; j += tensor.type->block_elements) {
      tensor.type->decode(
          blocks.data() + static_cast<size_t>(j / tensor.type->block_elements) * tensor.type->block_bytes, other);
      if (j == 0) first = other;
      scales.insert(other.scale[0]);
      if (whole) {
        EXPECT_EQ(other.minimum[0], first.minimum[0]) << spec;
      }
    }
    EXPECT_EQ(scales.size() == 1, whole) << spec;
    for (const PlannedTensor& t : plan_quantize(austen, options).tensors)
      EXPECT_EQ(t.whole_rows, whole && t.from != t.to) << spec << ' ' << t.name;
    Engine engine(Model::load(dir / "out.gguf"), {.threads = 1});
    GenerateOptions generate;
    generate.max_tokens = 1;
    EXPECT_EQ(Session(engine).generate(engine.model().tokenizer->encode("It was"), generate).generated_tokens, 1)
        << spec;
  }
}

TEST(QuantizeFile, TakesSmallerGroupsWhereRowsDoNotDivide) {
  const test::TempDir dir;
  test::tiny_llama(160).save(dir / "model.gguf");
  QuantizeOptions options;
  for (const auto& [spec, wide, narrow] : {std::tuple{"int5:g128:asym", "q5z_g32", "q5z_g32"},
                                           std::tuple{"int5:g64:sym:fp8", "q5s_g32_fp8", "q5s_g32_fp8"},
                                           std::tuple{"int3:g16:bf16", "q3s_g16_bf16", "q3s_g16_bf16"}}) {
    options.matrices = &find_quantize_type(spec);
    const QuantizeReport plan = plan_quantize(dir / "model.gguf", options);
    EXPECT_GT(plan.quantised, 0);
    for (const PlannedTensor& t : plan.tensors)
      if (t.matrix && t.name.starts_with("blk.")) {
        EXPECT_EQ(t.to->name, t.shape[-1] == 160 ? wide : narrow) << t.name;
      }
  }
}

TEST(QuantizeFile, LeavesRoutersAndPositionsAsTheyAre) {
  QuantizeOptions options;
  options.matrices = options.embedding = options.output = &find_quantize_type("q8_0");
  const std::pair<const char*, const char*> models[] = {
      {"mixtral", "ffn_gate_inp"}, {"qwen3moe", "ffn_gate_inp"}, {"gpt2", "position_embd"}};
  for (const auto& [name, kept] : models) {
    const QuantizeReport plan = plan_quantize(message(NIBBLE_TEST_DATA "/models/", name, ".gguf"), options);
    EXPECT_GT(plan.quantised, 0) << name;
    int seen = 0;
    for (const PlannedTensor& tensor : plan.tensors) {
      if (tensor.name.find(kept) == std::string::npos) continue;
      EXPECT_EQ(tensor.to, tensor.from) << name << ": " << tensor.name;
      ++seen;
    }
    EXPECT_GT(seen, 0) << name;
  }
}

TEST(QuantizeFile, RefusesToOverwriteItsInput) {
  const test::TempDir dir;
  test::tiny_llama().save(dir / "model.gguf");
  std::filesystem::create_symlink(dir / "model.gguf", dir / "link.gguf");
  const std::string before = test::read_file(dir / "model.gguf");
  EXPECT_THROW(quantize_file(dir / "model.gguf", dir / "model.gguf", {}), Error);
  EXPECT_THROW(quantize_file(dir / "model.gguf", dir / "link.gguf", {}), Error);
  EXPECT_EQ(test::read_file(dir / "model.gguf"), before);
}

/// One matrix (3, 128) of q4_g64 blocks.
test::GgufWriter native_file(std::vector<uint64_t> shape = {3, 2, 34}) {
  test::GgufWriter writer;
  writer.str("general.architecture", "llama");
  writer.strs(native_types_key, {"q6_g64", "q4_g64"});
  writer.tensor("w", std::move(shape), quant::native_gguf_id, std::string(3 * 2 * 34, '\0'));
  return writer;
}

TEST(NativeGguf, SaysWhatIsWrong) {
  const test::TempDir dir;
  const std::string path = dir / "a.gguf";
  native_file().save(path);
  const Gguf good = Gguf::open(path);
  EXPECT_EQ(good.tensor("w")->type_name(), "q4_g64");
  EXPECT_EQ(good.tensor("w")->shape, (Shape{3, 128}));
  const auto bad = [&](test::GgufWriter writer, const char* what) {
    writer.save(path);
    const std::string error = error_of(path);
    EXPECT_NE(error.find(what), std::string::npos) << error;
  };
  bad(native_file({3, 4, 17}), "dimensions of type I8 begin with 17");
  bad(native_file({6, 34}), "dimensions of type I8 begin with 34, of 2");
  bad(native_file({3, 0, 34}), "is 0: expected at least 1");
  bad(native_file({3, uint64_t{1} << 60, 34}), "dimension 1 is too large");
  bad(native_file({3, uint64_t{1} << 57, 34}), "dimension 1 is too large");
  bad(native_file({3, uint64_t{1} << 56, 34}), "2^63");
  bad(native_file({uint64_t{1} << 50, 2, 34}), "beyond the file");
  bad(native_file({3, 3, 34}), "beyond the file");
  test::GgufWriter unknown = native_file();
  unknown.values.clear();
  unknown.strs(native_types_key, {"q4_g64", "q3_g999"});
  bad(unknown, "'q3_g999' is not known");
  unknown.values.clear();
  unknown.strs(native_types_key, {"q4_g64", "q4_g64"});
  bad(unknown, "is there twice");
  unknown.values.clear();
  unknown.u32(native_types_key, 4);
  bad(unknown, "expected an array of strings");
  unknown.values.clear();  // without the key they are plain numbers
  unknown.save(path);
  EXPECT_EQ(Gguf::open(path).tensor("w")->type_name(), "i8");
}

}  // namespace
}  // namespace nibble::models
