// SPDX-License-Identifier: Apache-2.0
// GGUF files written as Hugging Face folders: the goldens come from folders that transformers saved, so what is written
// must be those again.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "models/generate.h"
#include "models/imatrix.h"
#include "models/io/checkpoint.h"
#include "models/io/coded_matrix.h"
#include "models/quantize_folder.h"
#include "models/text/tokenizer.h"
#include "tensor/check.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/load_model.h"
#include "tests/support/npy.h"
#include "tests/support/tiny_model.h"

namespace nibble::models {
namespace {

namespace fs = std::filesystem;
using test::GgufWriter;
const std::string goldens = NIBBLE_TEST_DATA "/models/";

std::vector<float> floats_of(const Checkpoint& checkpoint, const StoredTensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.shape.elements()));
  to_floats(tensor, checkpoint.bytes(tensor).data(), static_cast<int64_t>(values.size()), values.data());
  return values;
}

/// The logits of each of `tokens`, in f32 throughout.
std::vector<float> logits_of(const std::string& path, const std::vector<int32_t>& tokens) {
  // golden models whose rope depends on the context have 32 tokens for the short one
  Engine engine(test::load_model(path), {.threads = 1, .context = tokens.size() > 32 ? 96 : 32, .cache = DType::f32});
  std::vector<Row> rows;
  for (size_t i = 0; i < tokens.size(); ++i) rows.push_back({tokens[i], static_cast<int32_t>(i), 0, true});
  const auto logits = engine.run(rows);
  return {logits.begin(), logits.end()};
}

std::string error_of(const std::string& from, const std::string& to, const UnpackOptions& options = {}) {
  try {
    unpack_to_folder(from, to, options);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

nlohmann::json json_of(const std::string& path) { return nlohmann::json::parse(test::read_file(path)); }

class GgufFolder : public testing::TestWithParam<const char*> {};

TEST_P(GgufFolder, IsTheFolderThatTheFileWasMadeOf) {
  const std::string name = GetParam(), file = goldens + name + ".gguf";
  test::TempDir dir;
  const FolderReport report = unpack_to_folder(file, dir / "out", {});
  const Checkpoint out = Checkpoint::open(dir / "out"), original = Checkpoint::open(goldens + name);
  EXPECT_EQ(report.tensors.size(), out.tensors().size());
  ASSERT_EQ(out.tensors().size(), original.tensors().size());
  const bool plus_one = name.starts_with("gemma");
  for (const StoredTensor& want : original.tensors()) {
    const StoredTensor* got = out.tensor(want.name);
    ASSERT_NE(got, nullptr) << want.name;
    ASSERT_EQ(got->shape, want.shape) << want.name;
    const std::vector<float> a = floats_of(out, *got), b = floats_of(original, want);
    // 1 was added and rounded once to f32, below 2 in steps of 2^-23, and is taken away without a rounding
    const float bound = plus_one && want.shape.rank() == 1 ? 0x1p-23f : 0;
    for (size_t i = 0; i < a.size(); ++i) ASSERT_LE(std::abs(a[i] - b[i]), bound) << want.name << " " << i;
  }
  const auto written = json_of(dir / "out/config.json"), saved = json_of(goldens + name + "/config.json");
  for (const char* key : {"architectures", "model_type", "tie_word_embeddings", "vocab_size", "hidden_size", "n_embd"})
    EXPECT_EQ(written.value(key, nlohmann::json()), saved.value(key, nlohmann::json())) << key;
  const auto tokens = test::read_npy<int32_t>(goldens + name + ".tokens.npy").data;
  const auto wanted = test::read_npy<float>(goldens + name + ".logits.npy").data;
  const std::vector<float> got = logits_of(dir / "out", tokens), before = logits_of(file, tokens);
  ASSERT_EQ(got.size(), wanted.size());
  const auto [low, high] = std::minmax_element(wanted.begin(), wanted.end());
  for (size_t i = 0; i < got.size(); ++i) {  // the tolerance of tests/e2e/golden_test.cpp
    ASSERT_LE(std::abs(got[i] - wanted[i]), 1e-5f * (*high - *low)) << i;
    ASSERT_LE(std::abs(got[i] - before[i]), 1e-5f * (*high - *low)) << i;
  }
}

/// Names and contents.
std::map<std::string, std::string> files_of(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(folder))
    files[entry.path().filename()] = test::read_file(entry.path());
  return files;
}

/// A file of Q4_0 matrices becomes what the folder of its values becomes.
TEST_P(GgufFolder, QuantisesToWhatTheFolderOfFloatsWould) {
  test::TempDir dir;
  QuantizeOptions matrices;
  matrices.matrices = matrices.embedding = matrices.output = &find_quantize_type("q4_0");
  quantize_file(goldens + GetParam() + ".gguf", dir / "q4.gguf", matrices);
  unpack_to_folder(dir / "q4.gguf", dir / "floats", {});
  for (const char* spec : {"int3:g16:asym:bf16", "nf4:g32", "fp8_e4m3"}) {
    const FolderOptions options{.matrices = folder_layout(spec), .rules = {{"*.v_proj", {}}}, .split_bytes = 40000};
    if (std::string_view(GetParam()) == "gpt2") {  // all of its matrices are transposed
      EXPECT_THROW(quantize_folder(dir / "q4.gguf", dir / "none", options), Error);
      continue;
    }
    const std::string one = dir / message("one ", spec), two = dir / message("two ", spec);
    const FolderReport report = quantize_folder(dir / "q4.gguf", one, options);
    quantize_folder(dir / "floats", two, options);
    EXPECT_EQ(files_of(one), files_of(two)) << spec;
    const FolderReport plan = plan_folder(dir / "q4.gguf", options);
    EXPECT_GT(plan.quantised, 0) << spec;
    EXPECT_EQ(plan.quantised, report.quantised) << spec;
    EXPECT_EQ(plan.tensors.size(), report.tensors.size()) << spec;
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, GgufFolder,
                         testing::Values("llama-3", "llama-linear", "llama-yarn", "llama-tied", "mistral", "mixtral",
                                         "qwen2", "qwen3", "qwen3moe", "olmo2", "olmoe", "gemma", "gemma2",
                                         "gemma2-scalar", "gemma3", "gemma3-kinds", "granite", "smollm3", "phi3",
                                         "phi3-long", "phi3-short", "starcoder2", "stablelm", "stablelm-bias",
                                         "stablelm-12b", "gpt2"),
                         [](const auto& golden) {
                           std::string name = golden.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(UnpackToFolder, OtherArchitecturesAreRefusedWithThoseThereAre) {
  test::TempDir dir;
  for (const char* name : {"bloom", "falcon-7b", "deepseek2", "gptneox", "cohere"}) {
    const std::string error = error_of(goldens + name + ".gguf", dir / "out");
    EXPECT_NE(error.find("can't be written as a folder; those that can are llama, mistral"), std::string::npos)
        << error;
  }
  EXPECT_TRUE(fs::is_empty(dir / ""));
}

/// The tiny LLaMA whose vocabulary is SentencePiece's, written to a folder.
TEST(UnpackToFolder, KeepsAFilesValuesAndItsTokenizer) {
  test::TempDir dir;
  test::tiny_llama().save(dir / "model.gguf");
  unpack_to_folder(dir / "model.gguf", dir / "out", {});
  const auto before = Tokenizer::load(dir / "model.gguf");
  const TextFolder after = Tokenizer::load_folder(dir / "out");
  ASSERT_EQ(after.tokenizer->vocab(), before->vocab());
  EXPECT_EQ(after.tokenizer->bos(), before->bos());
  EXPECT_EQ(after.tokenizer->eos(), before->eos());
  for (int32_t id = 0; id < before->vocab(); ++id) {
    EXPECT_EQ(after.tokenizer->token_text(id), before->token_text(id));
    EXPECT_EQ(after.tokenizer->is_control(id), before->is_control(id)) << id;
    EXPECT_EQ(after.tokenizer->is_end(id), before->is_end(id)) << id;
  }
  for (const char* text :
       {"", "the cat", " two  spaces ", "a</s>b<s>", "\xE4\xBD\xA0\n\ttab", "<unk>", "x\xE2\x96\x81y"})
    EXPECT_EQ(after.tokenizer->encode(text), before->encode(text)) << text;
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 24; ++i) tokens.push_back(i * 7 % 300);
  EXPECT_EQ(logits_of(dir / "out", tokens).size(), logits_of(dir / "model.gguf", tokens).size());
}

/// Words of a byte-level vocabulary whose ids are those of `texts`.
GgufWriter byte_level_llama(const std::string& pre) {
  GgufWriter w = test::tiny_llama();
  for (const char* key : {"scores", "token_type", "tokens", "model", "add_space_prefix", "unknown_token_id"})
    test::erase_value(w, std::string("tokenizer.ggml.") + key);
  std::vector<std::string> texts;
  std::vector<int32_t> types;
  const auto add = [&](const std::string& text, int32_t type) {
    texts.push_back(text);
    types.push_back(type);
  };
  for (const char* text : {"<|end|>", "<|im_start|>", "<|im_end|>"}) add(text, 3);
  for (int c = 33; c < 127; ++c) add(std::string(1, static_cast<char>(c)), 1);
  // bytes that are no printable ASCII are spelled by later characters; these are the space and the line feed
  for (const char* text : {"\xC4\xA0", "\xC4\x8A", "\xC4\xA0t", "he", "\xC4\xA0the", "in", "ing", "12"}) add(text, 1);
  add("  ", 4);
  while (texts.size() < 300) add("[PAD" + std::to_string(texts.size()) + "]", 5);
  w.str("tokenizer.ggml.model", "gpt2")
      .str("tokenizer.ggml.pre", pre)
      .strs("tokenizer.ggml.tokens", texts)
      .i32s("tokenizer.ggml.token_type", types);
  w.strs("tokenizer.ggml.merges", {"\xC4\xA0 t", "h e", "\xC4\xA0t he", "i n", "in g", "1 2"});
  w.str("tokenizer.chat_template", "{{ messages[0].content }}<|im_end|>")
      .str("tokenizer.chat_template.tool_use", "tools");
  test::set_value(w, "tokenizer.ggml.bos_token_id", GgufWriter::vu32, test::raw(uint32_t{1}));
  test::set_value(w, "tokenizer.ggml.eos_token_id", GgufWriter::vu32, test::raw(uint32_t{2}));
  return w;
}

TEST(UnpackToFolder, WritesByteLevelTokenizersOfEveryPreTokenizer) {
  test::TempDir dir;
  for (const char* pre :
       {"smollm", "llama-bpe", "qwen2", "gpt-2", "default", "tekken", "deepseek-v3", "falcon", "chameleon"}) {
    fs::remove_all(dir / "out");
    byte_level_llama(pre).boolean("tokenizer.ggml.add_bos_token", pre[0] != 'g').save(dir / "model.gguf");
    unpack_to_folder(dir / "model.gguf", dir / "out", {});
    const auto before = Tokenizer::load(dir / "model.gguf");
    const TextFolder after = Tokenizer::load_folder(dir / "out");
    EXPECT_EQ(after.tokenizer->adds_bos(), before->adds_bos()) << pre;
    EXPECT_EQ(after.chat_template, "{{ messages[0].content }}<|im_end|>");
    ASSERT_EQ(after.chat_templates.size(), 1u);
    EXPECT_EQ(after.chat_templates[0].first, "tool_use");
    for (const char* text :
         {"the 12 things  in the ring", "<|im_start|>I'm 1234\n\n the<|im_end|>", "it's [PAD200] {the} the12", "a", ""})
      EXPECT_EQ(after.tokenizer->encode(text), before->encode(text)) << pre << ": " << text;
    for (int32_t id = 0; id < before->vocab(); ++id) EXPECT_EQ(after.tokenizer->is_end(id), before->is_end(id)) << id;
  }
  for (const char* pre : {"superbpe", "whitespace"}) {
    byte_level_llama(pre).save(dir / "model.gguf");
    const std::string error = error_of(dir / "model.gguf", dir / "other");
    EXPECT_NE(error.find(message("tokenizer.ggml.pre: '", pre, "' can't be written as tokenizer.json")),
              std::string::npos)
        << error;
  }
}

/// Quantises a golden's matrices first.
std::string quantised(const test::TempDir& dir) {
  test::tiny_llama().save(dir / "float.gguf");
  QuantizeOptions options;
  options.matrices = options.embedding = options.output = &find_quantize_type("q4_0");
  quantize_file(dir / "float.gguf", dir / "q4.gguf", options);
  return dir / "q4.gguf";
}

TEST(UnpackToFolder, QuantisedMatricesBecomeTheirValues) {
  test::TempDir dir;
  const std::string file = quantised(dir);
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 24; ++i) tokens.push_back(i * 7 % 300);
  const auto kept = unpack_to_folder(file, dir / "keep", {});
  EXPECT_EQ(json_of(dir / "keep/config.json")["torch_dtype"], "float32");
  EXPECT_TRUE(std::any_of(kept.tensors.begin(), kept.tensors.end(),
                          [](const FolderTensor& t) { return t.from == "q4_0" && t.to == "f32"; }));
  const Checkpoint from = Checkpoint::open(file), out = Checkpoint::open(dir / "keep");
  EXPECT_EQ(floats_of(from, *from.tensor("blk.0.ffn_gate.weight")),
            floats_of(out, *out.tensor("model.layers.0.mlp.gate_proj.weight")));
  for (const DType type : {DType::f16, DType::bf16}) {
    const std::string to = dir / std::string(name(type));
    unpack_to_folder(file, to, {.matrices = type, .threads = 2, .split_bytes = 20000});
    EXPECT_TRUE(fs::exists(to + "/model.safetensors.index.json"));
    EXPECT_EQ(json_of(to + "/config.json")["torch_dtype"], type == DType::f16 ? "float16" : "bfloat16");
    const Checkpoint rounded = Checkpoint::open(to);
    const StoredTensor& tensor = *rounded.tensor("model.layers.0.mlp.gate_proj.weight");
    EXPECT_EQ(tensor.type_name(), name(type));
    const std::vector<float> a = floats_of(rounded, tensor), b = floats_of(out, *out.tensor(tensor.name));
    for (size_t i = 0; i < a.size(); ++i)
      EXPECT_EQ(a[i], type == DType::f16 ? f16_to_f32(f32_to_f16(b[i])) : bf16_to_f32(f32_to_bf16(b[i])));
    EXPECT_EQ(rounded.tensor("model.norm.weight")->type_name(), "f32");
  }
}

TEST(UnpackToFolder, TakesFoldersOfFloats) {
  test::TempDir dir;
  test::tiny_llama().save(dir / "model.gguf");
  unpack_to_folder(dir / "model.gguf", dir / "one", {});
  const FolderReport same = unpack_to_folder(dir / "one", dir / "same", {.matrices = {}, .split_bytes = 20000});
  EXPECT_TRUE(fs::exists(dir / "same/model.safetensors.index.json"));
  const Checkpoint one = Checkpoint::open(dir / "one"), other = Checkpoint::open(dir / "same");
  ASSERT_EQ(other.tensors().size(), one.tensors().size());
  for (const StoredTensor& tensor : one.tensors())
    EXPECT_EQ(floats_of(other, *other.tensor(tensor.name)), floats_of(one, tensor)) << tensor.name;
  for (const char* text : {"config.json", "tokenizer.json", "tokenizer_config.json"})
    EXPECT_EQ(test::read_file(dir / "same/" + text), test::read_file(dir / "one/" + text)) << text;
  unpack_to_folder(dir / "one", dir / "bf16", {.matrices = DType::bf16, .threads = 2});
  unpack_to_folder(dir / "model.gguf", dir / "direct", {.matrices = DType::bf16, .threads = 2});
  const Checkpoint converted = Checkpoint::open(dir / "bf16"), direct = Checkpoint::open(dir / "direct");
  for (const StoredTensor& tensor : direct.tensors()) {
    const StoredTensor& found = *converted.tensor(tensor.name);
    EXPECT_EQ(found.type_name(), tensor.type_name()) << tensor.name;
    EXPECT_EQ(floats_of(converted, found), floats_of(direct, tensor)) << tensor.name;
  }
  EXPECT_EQ(json_of(dir / "bf16/config.json"), json_of(dir / "direct/config.json"));
  EXPECT_EQ(same.floats.size(), 1u);
  quantize_folder(dir / "one", dir / "coded", {.matrices = folder_layout("int4:g32"), .rules = {}});
  EXPECT_NE(error_of(dir / "coded", dir / "out", {}).find("expected a folder that is not quantised"), std::string::npos);
}

TEST(UnpackToFolder, LeavesNothingBehindWhenItFails) {
  test::TempDir dir;
  GgufWriter large = test::tiny_llama();
  std::fill_n(large.data.begin() + static_cast<ptrdiff_t>(large.tensors[0].offset), 4, '\x7e');  // 8.5e37
  large.save(dir / "large.gguf");
  FolderOptions half{.matrices = folder_layout("int4:g16"), .rules = {}, .kept = DType::f16};
  EXPECT_THROW(quantize_folder(dir / "large.gguf", dir / "out", half), Error);
  EXPECT_NE(error_of(dir / "large.gguf", dir / "out", {.matrices = DType::f16}).find("too large for f16"),
            std::string::npos);
  GgufWriter other = test::tiny_llama();
  other.tensor("blk.0.strange.weight", {4}, std::vector<float>(4));
  other.save(dir / "other.gguf");
  EXPECT_NE(
      error_of(dir / "other.gguf", dir / "out").find("blk.0.strange.weight: folders of llama have no such tensor"),
      std::string::npos)
      << error_of(dir / "other.gguf", dir / "out");
  GgufWriter bias = test::tiny_llama();
  bias.tensor("blk.0.attn_q.bias", {32}, std::vector<float>(32));
  bias.save(dir / "bias.gguf");
  EXPECT_NE(error_of(dir / "bias.gguf", dir / "out").find("have a bias"), std::string::npos)
      << error_of(dir / "bias.gguf", dir / "out");
  GgufWriter factors = test::tiny_llama();
  factors.tensor("rope_freqs.weight", {4}, std::vector<float>{3, 1, 2, 1});
  factors.save(dir / "factors.gguf");
  EXPECT_NE(error_of(dir / "factors.gguf", dir / "out").find("expected the factors of llama3's scaling"),
            std::string::npos);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir / "."), fs::directory_iterator()), 4)
      << "the files and nothing else";
}

TEST(UnpackToFolder, WritesWhatAQuantisedFolderKeepsAsTheTypeAskedFor) {
  test::TempDir dir;
  const std::string file = quantised(dir), embedding = "model.embed_tokens.weight";
  FolderOptions options{.matrices = folder_layout("int4:g32"), .rules = {}};
  quantize_folder(file, dir / "plain", options);
  options.kept = DType::f16;
  quantize_folder(file, dir / "out", options);
  const Checkpoint plain = Checkpoint::open(dir / "plain"), out = Checkpoint::open(dir / "out");
  EXPECT_EQ(plain.tensor(embedding)->type_name(), "f32") << "which holds its values";
  EXPECT_EQ(out.tensor(embedding)->type_name(), "f16");
  EXPECT_EQ(json_of(dir / "plain/config.json")["torch_dtype"], "float32");
  EXPECT_EQ(json_of(dir / "out/config.json")["torch_dtype"], "float16");
  std::vector<float> want = floats_of(plain, *plain.tensor(embedding));
  for (float& value : want) value = f16_to_f32(f32_to_f16(value));
  EXPECT_EQ(floats_of(out, *out.tensor(embedding)), want);
  const std::string name = "model.layers.0.mlp.gate_proj.weight";
  const auto codes = [&](const Checkpoint& checkpoint) {
    const StoredTensor& tensor = *checkpoint.tensor(name);
    std::vector<float> values(static_cast<size_t>(tensor.shape.elements()));
    read_floats(*tensor.coded, 0, tensor.shape[0], values.data());
    return values;
  };
  EXPECT_EQ(codes(out), codes(plain)) << "what is quantised does not change";
}

/// transformers runs no such folder otherwise.
TEST(UnpackToFolder, FloatsOfAFolderForBitsandbytesHaveOneType) {
  test::TempDir dir;
  test::tiny_llama().save(dir / "float.gguf");
  QuantizeOptions halves;
  halves.matrices = halves.embedding = halves.output = &find_quantize_type("f16");
  quantize_file(dir / "float.gguf", dir / "half.gguf", halves);
  const auto types = [&](const std::string& from, const FolderOptions& options) {
    fs::remove_all(dir / "out");
    quantize_folder(from, dir / "out", options);
    std::set<std::string> found;
    const Checkpoint out = Checkpoint::open(dir / "out");
    for (const StoredTensor& tensor : out.tensors())
      if (tensor.coded == nullptr) found.emplace(tensor.type_name());
    return found;
  };
  using Types = std::set<std::string>;
  FolderOptions options{.matrices = folder_layout("nf4:g32"), .rules = {}};
  unpack_to_folder(dir / "half.gguf", dir / "floats", {});
  for (const std::string& from : {dir / "half.gguf", dir / "floats"}) {
    options.kept.reset();
    EXPECT_EQ(types(from, options), Types{"f32"});
    EXPECT_EQ(json_of(dir / "out/config.json")["torch_dtype"], "float32");
    options.kept = DType::bf16;
    EXPECT_EQ(types(from, options), Types{"bf16"});
    EXPECT_EQ(json_of(dir / "out/config.json")["torch_dtype"], "bfloat16");
    EXPECT_EQ(types(from, {.matrices = folder_layout("int4:g32"), .rules = {}}), (Types{"f16", "f32"}));
    EXPECT_EQ(json_of(dir / "out/config.json")["torch_dtype"], "float16");
  }
}

TEST(UnpackToFolder, QuantisesByAnImportanceMatrixAsTheFolderWouldBe) {
  test::TempDir dir;
  const std::string file = quantised(dir);
  Imatrix imatrix;
  for (int i = 0; i < 32; ++i)
    imatrix.squares["blk.0.ffn_gate.weight"].push_back(i % 8 == 0 ? 1000.0f : 1.0f);
  imatrix.chunks = imatrix.chunk_tokens = 1;
  imatrix.write(dir / "imatrix");
  FolderOptions options{.matrices = folder_layout("int3:g32"), .rules = {}};
  quantize_folder(file, dir / "plain", options);
  options.importance = dir / "imatrix";
  unpack_to_folder(file, dir / "floats", {});
  quantize_folder(file, dir / "one", options);
  quantize_folder(dir / "floats", dir / "two", options);
  EXPECT_EQ(files_of(dir / "one"), files_of(dir / "two"));
  EXPECT_NE(files_of(dir / "one"), files_of(dir / "plain"));
  EXPECT_EQ(json_of(dir / "one/config.json")["quantization_config"]["quant_method"], "compressed-tensors");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir / "."), fs::directory_iterator()), 7)
      << "two files, the matrix and four folders";
}

}  // namespace
}  // namespace nibble::models
