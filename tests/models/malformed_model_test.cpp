// SPDX-License-Identifier: Apache-2.0
// Files whose container is sound but whose model is not: each gives an Error that names the place.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "models/decoder.h"
#include "tensor/check.h"
#include "tests/support/tiny_model.h"

namespace nibble::models {
namespace {

using test::GgufWriter;
using test::raw;

struct Case {
  std::string name;
  std::function<void(GgufWriter&)> break_it;
  std::vector<std::string> mentions;
};
void PrintTo(const Case& test, std::ostream* out) { *out << test.name; }

std::function<void(GgufWriter&)> u32(std::string key, uint32_t value) {
  return [=](GgufWriter& w) { test::set_value(w, key, GgufWriter::vu32, raw(value)); };
}
std::function<void(GgufWriter&)> u64(std::string key, uint64_t value) {
  return [=](GgufWriter& w) { test::set_value(w, key, GgufWriter::vu64, raw(value)); };
}
std::function<void(GgufWriter&)> f32(std::string key, float value) {
  return [=](GgufWriter& w) { test::set_value(w, key, GgufWriter::vf32, raw(value)); };
}
std::function<void(GgufWriter&)> str(std::string key, std::string value) {
  return [=](GgufWriter& w) { test::set_value(w, key, GgufWriter::vstring, test::raw_string(value)); };
}
std::function<void(GgufWriter&)> without(std::string tensor) {
  return [=](GgufWriter& w) { test::erase_tensor(w, tensor); };
}
/// The tensor's sizes as the file has them (innermost first), of the same or a smaller number of elements.
std::function<void(GgufWriter&)> sizes(std::string tensor, std::vector<uint64_t> dims) {
  return [=](GgufWriter& w) {
    for (GgufWriter::TensorInfo& info : w.tensors)
      if (info.name == tensor) info.sizes = dims, info.rank = static_cast<uint32_t>(dims.size());
  };
}
std::function<void(GgufWriter&)> typed(std::string tensor, uint32_t type) {
  return [=](GgufWriter& w) {
    for (GgufWriter::TensorInfo& info : w.tensors)
      if (info.name == tensor) info.type = type;
  };
}

std::vector<Case> cases() {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::string eps = "llama.attention.layer_norm_rms_epsilon", base = "llama.rope.freq_base";
  return {
      {"UnknownArchitecture", str("general.architecture", "nonesuch"), {"nonesuch", "known"}},
      {"TensorMissing", without("blk.1.ffn_up.weight"), {"blk.1.ffn_up.weight"}},
      {"NormMissing", without("output_norm.weight"), {"output_norm.weight"}},
      {"EmbeddingMissing", without("token_embd.weight"), {"embed"}},
      {"MatrixTransposed", sizes("blk.0.attn_k.weight", {16, 32}), {"blk.0.attn_k.weight", "(16, 32)", "(32, 16)"}},
      {"MatrixTooSmall", sizes("blk.1.ffn_down.weight", {48, 16}), {"blk.1.ffn_down.weight", "(32, 48)", "(16, 48)"}},
      {"NormTooShort", sizes("blk.0.ffn_norm.weight", {31}), {"blk.0.ffn_norm.weight", "(32)", "(31)"}},
      {"MatrixIsVector", sizes("blk.0.attn_q.weight", {1024}), {"blk.0.attn_q.weight", "(32, 32)", "(1024)"}},
      {"MatrixIsCube", sizes("blk.0.attn_q.weight", {32, 16, 2}), {"blk.0.attn_q.weight"}},
      {"LayersBeyondFile", u32("llama.block_count", 3), {"blk.2."}},
      {"NoLayers", u32("llama.block_count", 0), {"block_count", "0"}},
      {"BillionsOfLayers", u32("llama.block_count", 1u << 31), {"block_count", "2147483648"}},
      {"NoHeads", u32("llama.attention.head_count", 0), {"head_count"}},
      {"HeadsDoNotDivide", u32("llama.attention.head_count", 5), {"head_count", "5"}},
      {"NoKvHeads", u32("llama.attention.head_count_kv", 0), {"head_count_kv"}},
      {"KvHeadsDoNotDivide", u32("llama.attention.head_count_kv", 3), {"head_count_kv", "3"}},
      {"MoreKvHeadsThanHeads", u32("llama.attention.head_count_kv", 8), {"head_count_kv", "8"}},
      {"RopeWiderThanHead", u32("llama.rope.dimension_count", 16), {"rope.dimension_count", "16"}},
      {"RopeOdd", u32("llama.rope.dimension_count", 7), {"rope.dimension_count", "7"}},
      {"ExpertsWithoutCountUsed", u32("llama.expert_count", 8), {"expert_used_count"}},
      {"MoreExpertsUsedThanThere",
       [](GgufWriter& w) {
         str("general.architecture", "mixtral")(w);
         for (GgufWriter::Value& value : w.values)
           if (value.key.starts_with("llama.")) value.key.replace(0, 5, "mixtral"), value.key_bytes += 2;
         u32("mixtral.expert_count", 8)(w);
         u32("mixtral.expert_used_count", 9)(w);
       },
       {"expert_used_count", "9", "8"}},
      {"EpsNan", f32(eps, nan), {"layer_norm_rms_epsilon"}},
      {"EpsZero", f32(eps, 0), {"layer_norm_rms_epsilon"}},
      {"EpsMissing", [=](GgufWriter& w) { test::erase_value(w, eps); }, {"layer_norm_rms_epsilon"}},
      {"RopeBaseNan", f32(base, nan), {"freq_base"}},
      {"RopeBaseZero", f32(base, 0), {"freq_base"}},
      {"RopeBaseNegative", f32(base, -10000), {"freq_base"}},
      {"RopeBaseInfinite", f32(base, std::numeric_limits<float>::infinity()), {"freq_base"}},
      {"ContextZero", u32("llama.context_length", 0), {"context_length"}},
      {"ContextHuge", u64("llama.context_length", uint64_t{1} << 32), {"context_length", "4294967296"}},
      {"ArrayPerLayer",
       [](GgufWriter& w) {
         test::erase_value(w, "llama.attention.head_count_kv");
         const std::vector<int32_t> heads = {2, 2, 2};
         w.i32s("llama.attention.head_count_kv", heads);
       },
       {"head_count_kv"}},
      {"FloatForInteger", f32("llama.block_count", 2), {"block_count", "integer"}},
      {"StringForInteger", str("llama.embedding_length", "32"), {"embedding_length", "integer"}},
      {"WidthWrong", u32("llama.embedding_length", 64), {"expected"}},
      {"VocabularyTooSmall", u32("llama.vocab_size", 299), {"299", "300"}},
      {"EmbeddingShort",
       [](GgufWriter& w) {
         test::erase_value(w, "llama.vocab_size");
         sizes("token_embd.weight", {32, 290})(w);
       },
       {"290", "300"}},
      {"EmbeddingEndless",
       [](GgufWriter& w) {
         test::erase_value(w, "llama.vocab_size");
         test::erase_tensor(w, "token_embd.weight");
         constexpr uint64_t rows = (1 << 24) + 32;
         w.tensor("token_embd.weight", {rows}, GgufWriter::q4_0, std::string(rows / 32 * 18, '\0'));
       },
       {"token_embd.weight", "16777216", "16777248"}},
      {"ValueLengthDiffers", u32("llama.attention.value_length", 16), {"value_length", "16"}},
      {"ScalingUnknown", str("llama.rope.scaling.type", "magic"), {"rope.scaling.type", "magic"}},
      {"ScalingFactorZero",
       [](GgufWriter& w) {
         str("llama.rope.scaling.type", "linear")(w);
         f32("llama.rope.scaling.factor", 0)(w);
       },
       {"rope.scaling.factor"}},
      {"RopeFactorsShort", [](GgufWriter& w) { w.tensor("rope_freqs.weight", {2}, std::vector<float>{1, 1}); },
       {"rope_freqs.weight", "(4)", "(2)"}},
      {"RopeFactorNegative", [](GgufWriter& w) { w.tensor("rope_freqs.weight", {4}, std::vector<float>{1, 1, -1, 1}); },
       {"rope_freqs.weight", "factor 2", "-1"}},
      {"BlocksDoNotFitWidth", typed("blk.0.attn_v.weight", GgufWriter::q4_k), {"blk.0.attn_v.weight"}},
  };
}

class MalformedModel : public testing::TestWithParam<Case> {};

TEST_P(MalformedModel, IsRefusedNamingThePlace) {
  const test::TempDir dir;
  GgufWriter writer = test::tiny_llama();
  GetParam().break_it(writer);
  writer.save(dir / "model.gguf");
  try {
    Model::load(dir / "model.gguf", {.threads = 1, .need_tokenizer = true, .arch = {}, .progress = {}});
    FAIL() << "loaded";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("model.gguf"), std::string::npos) << text;
    for (const std::string& part : GetParam().mentions) EXPECT_NE(text.find(part), std::string::npos) << text;
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, MalformedModel, testing::ValuesIn(cases()),
                         [](const auto& test) { return test.param.name; });

TEST(ModelLoad, RefusesFilesOfOtherThingsThanModels) {
  const test::TempDir dir;
  const auto refused = [&](const std::string& path, const std::vector<std::string>& mentions) {
    try {
      Model::load(path);
      ADD_FAILURE() << "loaded";
    } catch (const Error& error) {
      for (const std::string& part : mentions)
        EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  for (const char* type : {"adapter", "mmproj", "imatrix"}) {
    GgufWriter writer = test::tiny_llama();
    writer.str("general.type", type);
    writer.save(dir / "other.gguf");
    refused(dir / "other.gguf", {"other.gguf", "general.type", "expected a model", type});
  }
  GgufWriter vision = test::tiny_llama();
  test::set_value(vision, "general.architecture", GgufWriter::vstring, test::raw_string("clip"));
  vision.save(dir / "clip.gguf");
  refused(dir / "clip.gguf", {"clip.gguf", "general.architecture", "'clip'"});
  test::write_file(dir / "adapter_config.json", R"({"peft_type": "LORA", "r": 8, "base_model_name_or_path": "a/b"})");
  test::write_file(dir / "adapter_model.safetensors", test::raw(uint64_t{2}) + "{}");
  refused(dir.path(), {dir.path(), "adapter_config.json", "merge it"});
}

TEST(ModelLoad, TakesTheFileThatTheCasesBreak) {
  const test::TempDir dir;
  test::tiny_llama().save(dir / "model.gguf");
  uint64_t last = 0, total = 0;
  const auto progress = [&](uint64_t done, uint64_t all) { last = done, total = all; };
  const auto model =
      Model::load(dir / "model.gguf", {.threads = 2, .need_tokenizer = true, .arch = "llama", .progress = progress});
  EXPECT_EQ(model->name, "tiny");
  EXPECT_EQ(model->format, "f32");
  EXPECT_EQ(model->config.vocab, 300);
  EXPECT_EQ(model->config.pairing, Pairing::interleaved);
  EXPECT_EQ(model->parameters, 300u * 32 + 32 + 2 * (2 * 32 + 2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32));
  EXPECT_EQ(model->macs_per_token, 2u * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32));
  EXPECT_EQ(last, total);
  EXPECT_EQ(total, 4 * model->parameters);
  EXPECT_TRUE(model->weights.unused().empty());
}

TEST(ModelLoad, ListsTensorsThatNobodyAskedFor) {
  const test::TempDir dir;
  GgufWriter writer = test::tiny_llama();
  writer.tensor("blk.0.surprise.weight", {4}, std::vector<float>(4));
  writer.save(dir / "model.gguf");
  const auto model = Model::load(dir / "model.gguf");
  EXPECT_EQ(model->weights.unused(), std::vector<std::string>{"blk.0.surprise.weight"});
}

TEST(ModelLoad, DemoOfAVariantTakesFilesOfItsBase) {
  const test::TempDir dir;
  GgufWriter writer = test::tiny_llama();
  writer.u32("llama.attention.sliding_window", 7).save(dir / "model.gguf");
  const auto load = [&](const std::string& arch) {
    return Model::load(dir / "model.gguf", {.threads = 1, .need_tokenizer = true, .arch = arch, .progress = {}});
  };
  EXPECT_EQ(load("mistral")->arch->name, "mistral");
  EXPECT_EQ(load("mistral")->config.window, 7);
  EXPECT_EQ(load("llama")->config.window, 7);
  EXPECT_EQ(load("")->arch->name, "llama");
  EXPECT_THROW(load("gptj"), Error);
}

}  // namespace
}  // namespace nibble::models
