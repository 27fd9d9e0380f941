// SPDX-License-Identifier: Apache-2.0
// A real model in 8 and 4 bits against transformers on the dequantised weights (tests/data/make_smollm2_goldens.py).
// Looks for the file where scripts/run.sh puts it, or where NIBBLE_SMOLLM2 says.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "jit/jit.h"
#include "models/generate.h"
#include "models/perplexity.h"
#include "tensor/check.h"
#include "tests/support/gguf_writer.h"

namespace nibble::models {
namespace {

std::filesystem::path model_path() {
  if (const char* path = std::getenv("NIBBLE_SMOLLM2")) return path;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  return (cache != nullptr ? std::filesystem::path(cache)
                           : std::filesystem::path(home != nullptr ? home : "") / ".cache") /
         "nibble" / "SmolLM2-135M-Instruct.Q4_1.gguf";
}

std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream all;
  all << in.rdbuf();
  return all.str();
}

/// The same model with every matrix dequantised and written again as `type`.
void requantise(const std::string& from, const std::string& to, const quant::BlockType& type) {
  const Gguf gguf = Gguf::open(from);
  test::GgufWriter writer;
  const Metadata metadata = gguf.metadata();
  for (const char* key : {"block_count", "embedding_length", "attention.head_count", "attention.head_count_kv",
                          "feed_forward_length", "context_length", "rope.dimension_count"})
    writer.u32(message("llama.", key), static_cast<uint32_t>(metadata.need_int(key, 1, 1 << 30)));
  writer.str("general.architecture", "llama");
  writer.f("llama.rope.freq_base", static_cast<float>(metadata.need_float("rope.freq_base", 1, 1e9)));
  writer.f("llama.attention.layer_norm_rms_epsilon",
           static_cast<float>(metadata.need_float("attention.layer_norm_rms_epsilon", 0, 1)));
  for (const GgufTensor& tensor : gguf.tensors()) {
    const auto elements = static_cast<size_t>(tensor.shape.elements());
    std::vector<float> values(elements);
    quant::dequantize_blocks(*tensor.type, gguf.bytes(tensor).data(), tensor.shape.elements(), values.data());
    std::vector<uint64_t> shape;
    for (int i = 0; i < tensor.shape.rank(); ++i) shape.push_back(static_cast<uint64_t>(tensor.shape[i]));
    if (shape.size() == 1 || type.encode == nullptr) {
      writer.tensor(tensor.name, shape, values);
      continue;
    }
    const auto block = static_cast<size_t>(type.block_elements);
    std::string blocks(elements / block * type.block_bytes, '\0');
    for (size_t i = 0; i < elements / block; ++i)
      type.encode(values.data() + i * block, reinterpret_cast<std::byte*>(blocks.data() + i * type.block_bytes));
    writer.tensor(tensor.name, shape, type.gguf_id, blocks);
  }
  writer.save(to);
}

/// How many tokens of the greedy continuation agree before the first that does not, per prompt.
std::vector<size_t> agreement(const std::shared_ptr<const Model>& model, const nlohmann::json& cases,
                              const char* kind) {
  std::vector<size_t> result;
  Engine engine(model, {.context = 128});
  for (const auto& item : cases) {
    const auto ids = item["ids"].get<std::vector<int32_t>>(), want = item[kind].get<std::vector<int32_t>>();
    engine.truncate(0, 0);
    std::vector<Row> rows;
    for (size_t i = 0; i < ids.size(); ++i) rows.push_back({ids[i], static_cast<int32_t>(i), 0, i + 1 == ids.size()});
    size_t agreed = 0;
    while (agreed < want.size()) {
      const std::span<const float> logits = engine.run(rows);
      if (std::max_element(logits.begin(), logits.end()) - logits.begin() != want[agreed]) break;
      rows.assign(1, {want[agreed], static_cast<int32_t>(ids.size() + agreed), 0, true});
      ++agreed;
    }
    result.push_back(agreed);
  }
  return result;
}

std::string shown(const std::vector<size_t>& counts) {
  std::string text;
  for (size_t count : counts) text += message(text.empty() ? "" : " ", count);
  return text;
}

class SmolLM2 : public testing::Test {
 protected:
  void SetUp() override {
    path_ = model_path().string();
    if (!std::filesystem::exists(path_)) GTEST_SKIP() << path_ << " is not here: scripts/run.sh fetches it";
    if (max_isa() == Isa::generic || !supported(max_isa())) GTEST_SKIP() << "too slow without native kernels";
    jit::register_kernels();
    cases_ = nlohmann::json::parse(read_text(NIBBLE_TEST_DATA "/smollm2_greedy.json"));
  }
  std::shared_ptr<const Model> load(const std::string& path) const {
    return Model::load(path, {.threads = 0, .need_tokenizer = false, .arch = {}, .progress = {}});
  }
  std::string path_;
  nlohmann::json cases_;
};

TEST_F(SmolLM2, GreedyTextInEightBitsIsThatOfTransformers) {
  const test::TempDir dir;
  requantise(path_, dir / "q8_0.gguf", *quant::find_block_type(8));
  const auto model = load(dir / "q8_0.gguf");
  EXPECT_EQ(model->format, "q8_0");
  const std::vector<size_t> counts = agreement(model, cases_, "q8_0");
  RecordProperty("tokens", shown(counts));
  ASSERT_EQ(counts.size(), 5u);
  for (size_t count : counts) EXPECT_GE(count, 32u) << shown(counts);
}

TEST_F(SmolLM2, GreedyTextOfFloatsIsThatOfTransformers) {
  const test::TempDir dir;
  requantise(path_, dir / "f32.gguf", *quant::find_block_type(0));
  const std::vector<size_t> counts = agreement(load(dir / "f32.gguf"), cases_, "q4_1");
  RecordProperty("tokens", shown(counts));
  for (size_t count : counts) EXPECT_GE(count, 60u) << shown(counts);
}

TEST_F(SmolLM2, PerplexityInFourBitsIsNearThatOfTheDequantisedWeights) {
  const std::string text = NIBBLE_SOURCE_DIR "/../shared/data/text/wiki.test.raw";
  if (!std::filesystem::exists(text)) GTEST_SKIP() << text << " is not here";
  const test::TempDir dir;
  requantise(path_, dir / "f32.gguf", *quant::find_block_type(0));
  const auto tokenizer = Tokenizer::from_gguf(Gguf::open(path_));
  const std::vector<int32_t> tokens =
      tokenizer->encode(read_text(text).substr(0, 60000), {.add_bos = true, .parse_special = false});
  Engine floats(load(dir / "f32.gguf"), {.context = 512}), packed(load(path_), {.context = 512});
  const double want = perplexity(floats, tokens, 512, 8, {}, dir / "floats.kld").perplexity;
  // transformers on the dequantised weights, the same tokens and positions; f16 keys and values move it by 1e-4 at most
  EXPECT_NEAR(want, 24.4974, 0.001 * 24.4974);
  const double four_bits = perplexity(packed, tokens, 512, 8).perplexity;
  RecordProperty("packed", std::to_string(four_bits));
  RecordProperty("floats", std::to_string(want));
  EXPECT_NEAR(four_bits, want, 0.005 * want);
  // Caches are judged on float weights: with int8 activations any change, f16 for f32 keys too, moves every rounding
  // behind it (a divergence of 0.0024 on this text). A divergence of KL is a variance of 2 KL in the log-probabilities
  // of single tokens, so the mean over n positions strays by sqrt(2 KL / n) without any loss.
  const LogitsFile base(dir / "floats.kld");
  for (DType cache : {DType::bf16, DType::i8}) {
    Engine engine(load(dir / "f32.gguf"), {.context = 512, .cache = cache});
    const DivergenceResult result = compare_logits(engine, base, 0);
    RecordProperty(std::string("divergence_") + std::string(name(cache)), std::to_string(result.divergence.value));
    EXPECT_LT(result.divergence.value, 0.0005) << name(cache);
    const double stray = std::sqrt(2 * result.divergence.value / static_cast<double>(result.divergences.size()));
    EXPECT_NEAR(result.perplexity.value, want, (0.001 + 3 * stray) * want) << name(cache);
  }
}

}  // namespace
}  // namespace nibble::models
