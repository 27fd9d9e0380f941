// SPDX-License-Identifier: Apache-2.0
#include "tests/support/tiny_model.h"

#include <random>

namespace nibble::test {

namespace {

constexpr int layers = 2, width = 32, kv_width = 16, vocab = 300;

void add_vocabulary(GgufWriter& w) {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types = {2, 3, 3};
  for (int byte = 0; byte < 256; ++byte) {
    const char digits[] = "0123456789ABCDEF";
    tokens.push_back(std::string("<0x") + digits[byte / 16] + digits[byte % 16] + ">");
    types.push_back(6);
  }
  const std::string space = "\u2581";
  tokens.push_back(space);
  for (char c = 'a'; c <= 'z'; ++c) tokens.push_back(std::string(1, c));
  for (const char* word : {"th", "the", "an", "and", "in", "is", "it"}) tokens.emplace_back(word);
  for (const char* word : {"the", "and", "it", "is"}) tokens.push_back(space + word);
  while (tokens.size() < vocab) tokens.push_back(space + "x" + std::to_string(tokens.size()));
  types.resize(vocab, 1);
  std::vector<float> scores(vocab);
  for (size_t i = 0; i < scores.size(); ++i) scores[i] = -static_cast<float>(i);
  w.str("tokenizer.ggml.model", "llama").strs("tokenizer.ggml.tokens", std::span<const std::string>(tokens));
  w.f32s("tokenizer.ggml.scores", scores).i32s("tokenizer.ggml.token_type", types);
  w.u32("tokenizer.ggml.bos_token_id", 1)
      .u32("tokenizer.ggml.eos_token_id", 2)
      .u32("tokenizer.ggml.unknown_token_id", 0);
}

}  // namespace

GgufWriter tiny_llama(int ffn_width) {
  const auto ffn = static_cast<uint32_t>(ffn_width);
  GgufWriter w;
  w.str("general.architecture", "llama").str("general.name", "tiny");
  w.u32("llama.block_count", layers).u32("llama.embedding_length", width).u32("llama.attention.head_count", 4);
  w.u32("llama.attention.head_count_kv", 2).u32("llama.feed_forward_length", ffn).u32("llama.context_length", 64);
  w.u32("llama.rope.dimension_count", 8).f("llama.rope.freq_base", 10000).u32("llama.vocab_size", vocab);
  w.f("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  add_vocabulary(w);

  std::mt19937 random(5);  // its sequence is fixed by the standard, unlike the distributions
  const auto add = [&](const std::string& name, std::vector<uint64_t> shape, float middle, float spread) {
    size_t count = 1;
    for (uint64_t d : shape) count *= d;
    std::vector<float> values(count);
    for (float& v : values) v = middle + spread * (static_cast<float>(random() % 2001) / 1000 - 1);
    w.tensor(name, shape, values);
  };
  add("token_embd.weight", {vocab, width}, 0, 1);
  add("output_norm.weight", {width}, 1, 0.2f);
  for (int i = 0; i < layers; ++i) {
    const std::string blk = "blk." + std::to_string(i) + ".";
    add(blk + "attn_norm.weight", {width}, 1, 0.2f);
    add(blk + "attn_q.weight", {width, width}, 0, 0.3f);
    add(blk + "attn_k.weight", {kv_width, width}, 0, 0.3f);
    add(blk + "attn_v.weight", {kv_width, width}, 0, 0.3f);
    add(blk + "attn_output.weight", {width, width}, 0, 0.3f);
    add(blk + "ffn_norm.weight", {width}, 1, 0.2f);
    add(blk + "ffn_gate.weight", {ffn, width}, 0, 0.3f);
    add(blk + "ffn_up.weight", {ffn, width}, 0, 0.3f);
    add(blk + "ffn_down.weight", {width, ffn}, 0, 0.3f);
  }
  return w;
}

void set_value(GgufWriter& writer, std::string_view key, uint32_t type, std::string_view raw) {
  erase_value(writer, key);
  writer.raw_value(key, type, raw);
}

void erase_value(GgufWriter& writer, std::string_view key) {
  std::erase_if(writer.values, [&](const GgufWriter::Value& value) { return value.key == key; });
}

void erase_tensor(GgufWriter& writer, std::string_view name) {
  std::erase_if(writer.tensors, [&](const GgufWriter::TensorInfo& tensor) { return tensor.name == name; });
}

}  // namespace nibble::test
