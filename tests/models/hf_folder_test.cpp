// SPDX-License-Identifier: Apache-2.0
// Model folders: against the logits of Hugging Face transformers (tests/data/make_folder_goldens.py), and broken.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "jit/jit.h"
#include "models/decoder.h"
#include "models/generate.h"
#include "models/io/checkpoint.h"
#include "tensor/check.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/load_model.h"
#include "tests/support/npy.h"

namespace nibble::models {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const std::string goldens = NIBBLE_TEST_DATA "/folders/";

std::vector<float> run(const std::string& path, const std::vector<int32_t>& tokens) {
  Engine engine(test::load_model(path), {.threads = 1, .context = 96, .cache = DType::f32});
  std::vector<Row> rows;
  for (size_t i = 0; i < tokens.size(); ++i) rows.push_back({tokens[i], static_cast<int32_t>(i), 0, true});
  const std::span<const float> logits = engine.run(rows);
  return {logits.begin(), logits.end()};
}

class FolderGoldens : public testing::TestWithParam<const char*> {};

TEST_P(FolderGoldens, LogitsMatchTransformers) {
  const std::string folder = goldens + GetParam();
  const std::vector<float> want = test::read_npy<float>(folder + "/logits.npy").data;
  const std::vector<float> got = run(folder, test::read_npy<int32_t>(folder + "/tokens.npy").data);
  ASSERT_EQ(got.size(), want.size());
  const auto [low, high] = std::minmax_element(want.begin(), want.end());
  float worst = 0;
  for (size_t i = 0; i < got.size(); ++i)
    worst = std::max(worst, std::isnan(got[i]) ? INFINITY : std::abs(got[i] - want[i]));
  EXPECT_LE(worst, 1e-5f * (*high - *low));
}

INSTANTIATE_TEST_SUITE_P(All, FolderGoldens, testing::Values("llama-f32", "llama-bf16-shards", "mistral-f16"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

/// A copy of a golden folder, to be broken.
struct Copy {
  test::TempDir dir;
  std::string path = dir / "model";

  explicit Copy(const std::string& name = "llama-bf16-shards") {
    fs::copy(goldens + name, path, fs::copy_options::recursive);
  }
  std::string operator/(const std::string& file) const { return path + "/" + file; }
  void edit(const std::string& file, const std::function<void(json&)>& change) const {
    json value = json::parse(test::read_file(*this / file));
    change(value);
    test::write_file(*this / file, value.dump());
  }
};

void expect_refused(const std::string& path, const std::vector<std::string>& mentions) {
  try {
    test::load_model(path);
    ADD_FAILURE() << "taken";
  } catch (const Error& error) {
    const std::string what = error.what();
    for (const std::string& text : mentions)
      EXPECT_NE(what.find(text), std::string::npos) << what << "\nlacks " << text;
  }
}

constexpr const char* index_name = "model.safetensors.index.json";
constexpr const char* first_shard = "model-00001-of-00004.safetensors";

TEST(HfFolder, AnyOfItsFilesNamesIt) {
  const std::vector<int32_t> tokens = {1, 2, 3};
  const std::vector<float> want = run(goldens + "llama-f32", tokens);
  EXPECT_EQ(run(goldens + "llama-f32/", tokens), want);
  EXPECT_EQ(run(goldens + "llama-f32/config.json", tokens), want);
  EXPECT_EQ(run(goldens + "llama-f32/model.safetensors", tokens), want);
}

TEST(HfFolder, OneFileOfAnotherNameServes) {
  const Copy copy("llama-f32");
  fs::rename(copy / "model.safetensors", copy / "weights.safetensors");
  EXPECT_NO_THROW(test::load_model(copy.path));
  fs::copy(copy / "weights.safetensors", copy / "more.safetensors");
  expect_refused(copy.path, {"model.safetensors", "2 other"});
}

TEST(HfFolder, WeightsMissing) {
  const Copy copy("llama-f32");
  fs::remove(copy / "model.safetensors");
  expect_refused(copy.path, {copy.path, "no weights", index_name});
  test::write_file(copy / "pytorch_model.bin", "PK");
  expect_refused(copy.path, {"pytorch_model.bin", "pickle", "save_pretrained"});
}

TEST(HfFolder, IndexNamesOnlyFilesOfTheFolder) {
  for (const char* name : {"../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", "", "a\\b"}) {
    const Copy copy;
    copy.edit(index_name, [&](json& index) { index["weight_map"]["model.norm.weight"] = name; });
    expect_refused(copy.path, {index_name, "model.norm.weight", "in this folder"});
  }
  const Copy copy;
  copy.edit(index_name, [](json& index) { index["weight_map"]["model.norm.weight"] = 7; });
  expect_refused(copy.path, {index_name, "model.norm.weight", "7"});
}

TEST(HfFolder, ShardsMissingOrWrong) {
  const Copy missing, elsewhere, twice, no_map, odd_map;
  fs::remove(missing / first_shard);
  expect_refused(missing.path, {first_shard, "missing"});
  elsewhere.edit(index_name, [](json& index) {
    for (auto& [name, shard] : index["weight_map"].items()) shard = first_shard;
  });
  expect_refused(elsewhere.path, {index_name, first_shard, "is not in"});
  twice.edit(index_name, [](json& index) { index["weight_map"]["model.norm.weight"] = "again.safetensors"; });
  fs::copy(twice / first_shard, twice / "again.safetensors");
  expect_refused(twice.path, {"again.safetensors", first_shard, "is also in"});
  test::write_file(no_map / index_name, "{}");
  expect_refused(no_map.path, {index_name, "weight_map"});
  test::write_file(odd_map / index_name, R"({"weight_map":[1]})");
  expect_refused(odd_map.path, {index_name, "weight_map"});
}

TEST(HfFolder, LinksOutOfItAreRefused) {
  const Copy copy;
  fs::rename(copy / first_shard, copy.dir / "elsewhere");
  fs::create_symlink("../elsewhere", copy / first_shard);
  expect_refused(copy.path, {first_shard, "leaves the folder"});
  const Copy config;
  fs::rename(config / "config.json", config.dir / "elsewhere");
  fs::create_symlink(config.dir / "elsewhere", config / "config.json");
  expect_refused(config.path, {"config.json", "leaves the folder"});
}

TEST(HfFolder, SnapshotsOfAHubCacheLinkToItsBlobs) {
  const Copy copy("llama-f32");
  const std::string snapshots = copy.dir / "hub/snapshots", blobs = copy.dir / "hub/blobs";
  fs::create_directories(snapshots);
  fs::create_directories(blobs);
  fs::rename(copy.path, snapshots + "/1234");
  fs::rename(snapshots + "/1234/model.safetensors", blobs + "/abcd");
  fs::create_symlink("../../blobs/abcd", snapshots + "/1234/model.safetensors");
  EXPECT_NO_THROW(test::load_model(snapshots + "/1234"));
}

TEST(HfFolder, ConfigMissingOrBroken) {
  struct Case {
    std::string text;
    std::vector<std::string> mentions;
  };
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "[";
  const std::vector<Case> cases = {
      {"", {"not valid JSON"}},
      {"[]", {"array"}},
      {"{", {"byte", "not valid JSON"}},
      {R"({"a":1,"b":{"c":1,"c":2}})", {"'c'", "twice"}},
      {R"({"a":)" + deep, {"64"}},
      {R"({"a":NaN})", {"not valid JSON"}},
      {"{\"a\":\"\xff\"}", {"not valid JSON"}},
      {"{}", {"model_type", "missing"}},
      {R"({"model_type":7})", {"model_type", "7"}},
      {R"({"model_type":"nonesuch"})", {"model_type", "nonesuch"}},
  };
  for (const Case& test : cases) {
    const Copy copy;
    test::write_file(copy / "config.json", test.text);
    std::vector<std::string> mentions = test.mentions;
    mentions.push_back("config.json");
    expect_refused(copy.path, mentions);
  }
  const Copy copy;
  fs::remove(copy / "config.json");
  expect_refused(copy.path, {"config.json"});
}

TEST(HfFolder, NumbersOutOfRangeNameTheKey) {
  struct Case {
    const char* key;
    json value;
  };
  const std::vector<Case> cases = {
      {"num_hidden_layers", 1000000000},
      {"num_hidden_layers", 0},
      {"num_hidden_layers", "2"},
      {"num_hidden_layers", 2.5},
      {"num_attention_heads", 0},
      {"num_attention_heads", -4},
      {"num_key_value_heads", 3},
      {"rms_norm_eps", 0.0},
      {"rms_norm_eps", "small"},
      {"hidden_size", 1e30},
      {"head_dim", 0},
      {"vocab_size", -1},
      {"vocab_size", 4000000000u},
      {"max_position_embeddings", 0},
      {"hidden_size", nullptr},
      {"intermediate_size", json::array()},
  };
  for (const Case& test : cases) {
    const Copy copy;
    copy.edit("config.json", [&](json& config) { config[test.key] = test.value; });
    std::string key = test.key;
    if (key == "num_key_value_heads") key = "head_count_kv";
    expect_refused(copy.path, {"config.json", key});
  }
}

TEST(HfFolder, LayersAndShapesBeyondTheFile) {
  const Copy layers, shape;
  layers.edit("config.json", [](json& config) { config["num_hidden_layers"] = 3; });
  expect_refused(layers.path, {"no tensor", "model.layers.2."});
  shape.edit("config.json", [](json& config) { config["intermediate_size"] = 40; });
  expect_refused(shape.path, {"mlp.gate_proj.weight", "(40, 32)", "(36, 32)"});
}

TEST(HfFolder, QuantisedOnesThatCannotBeReadAreRefused) {
  const Copy copy;
  copy.edit("config.json", [](json& config) { config["quantization_config"] = {{"quant_method", "nonesuch"}}; });
  expect_refused(copy.path, {"config.json", "quantization_config", "nonesuch"});
}

TEST(HfFolder, ShrunkFilesAreNoticed) {
  const Copy copy("llama-f32");
  const Checkpoint checkpoint = Checkpoint::open(copy.path);
  fs::resize_file(copy / "model.safetensors", 100);
  EXPECT_THROW(checkpoint.file(checkpoint.tensors().front()).check_unchanged(), Error);
}

TEST(HfFolder, ReplacedFilesStayThoseThatWereOpened) {
  const Copy copy("llama-f32");
  const Checkpoint checkpoint = Checkpoint::open(copy.path);
  const StoredTensor& tensor = checkpoint.tensors().front();
  const auto bytes = checkpoint.bytes(tensor);
  const std::vector<std::byte> before(bytes.begin(), bytes.end());
  test::write_file(copy / "new", "something else");
  fs::rename(copy / "new", copy / "model.safetensors");
  checkpoint.file(tensor).release(tensor.offset, tensor.bytes);
  EXPECT_TRUE(std::ranges::equal(checkpoint.bytes(tensor), before));
  EXPECT_NO_THROW(checkpoint.file(tensor).check_unchanged());
}

TEST(HfFolder, TextConfigAndWrappedNamesAreThoseOfTheTextModel) {
  const Copy copy("llama-f32");
  copy.edit("config.json", [](json& config) {
    json text = config;
    config = {{"model_type", "wrapper"}, {"hidden_size", 7}, {"text_config", text}};
  });
  std::string bytes = test::read_file(copy / "model.safetensors");
  uint64_t size = 0;
  std::memcpy(&size, bytes.data(), 8);
  json header = json::parse(bytes.substr(8, size)), renamed;
  for (auto& [name, value] : header.items()) renamed[name == "__metadata__" ? name : "language_model." + name] = value;
  const std::string text = renamed.dump();
  test::write_file(copy / "model.safetensors", test::raw(uint64_t{text.size()}) + text + bytes.substr(8 + size));
  const std::vector<int32_t> tokens = {5, 6, 7};
  EXPECT_EQ(run(copy.path, tokens), run(goldens + "llama-f32", tokens));
}

/// Gives the folder a tokenizer of `tokens` words "t0", "t1", ... (its embedding matrix has 48 rows).
void add_words(const Copy& copy, int tokens) {
  json vocab;
  for (int i = 0; i < tokens; ++i) vocab[message("t", i)] = i;
  const json tokenizer = {{"model", {{"type", "WordLevel"}, {"vocab", vocab}, {"unk_token", "t0"}}},
                          {"pre_tokenizer", {{"type", "Whitespace"}}}};
  test::write_file(copy / "tokenizer.json", tokenizer.dump());
}

TEST(HfFolder, RowsBehindTheVocabularyAreNeverDrawn) {
  jit::register_kernels();
  const Copy copy("llama-f32");
  add_words(copy, 5);
  EXPECT_TRUE(has_tokenizer(copy.path));
  Engine engine(Model::load(copy.path), {.threads = 1, .context = 96});
  Session session(engine);
  GenerateOptions options;
  options.max_tokens = 60;
  options.ignore_eos = true;
  options.sampler.temperature = 100;
  const std::vector<int32_t> prompt = {1, 4};
  const GenerateResult result = session.generate(prompt, options, {});
  EXPECT_EQ(result.tokens.size(), 60u);
  for (int32_t token : result.tokens) EXPECT_LT(token, 5);
}

TEST(HfFolder, VocabulariesLargerThanTheMatrixAreRefused) {
  const Copy copy("llama-f32");
  EXPECT_FALSE(has_tokenizer(copy.path));
  add_words(copy, 49);
  EXPECT_TRUE(has_tokenizer(copy.path));
  try {
    Model::load(copy.path);
    FAIL() << "loaded";
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_TRUE(what.find("49") != what.npos && what.find("48") != what.npos) << what;
  }
}

TEST(HfFolder, ChatTemplateComesFromEitherFile) {
  const Copy copy;
  const auto chat_template = [&] { return Checkpoint::open(copy.path).folder()->chat_template(); };
  EXPECT_EQ(chat_template(), "");
  test::write_file(copy / "tokenizer_config.json", R"({"chat_template":"one"})");
  EXPECT_EQ(chat_template(), "one");
  test::write_file(copy / "tokenizer_config.json",
                   R"({"chat_template":[{"name":"rag","template":"a"},{"name":"default","template":"two"}]})");
  EXPECT_EQ(chat_template(), "two");
  test::write_file(copy / "tokenizer_config.json", R"({"chat_template":7})");
  EXPECT_THROW(chat_template(), Error);
  test::write_file(copy / "chat_template.jinja", "three");
  EXPECT_EQ(chat_template(), "three");
}

}  // namespace
}  // namespace nibble::models
