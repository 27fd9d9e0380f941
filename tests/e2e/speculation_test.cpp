// SPDX-License-Identifier: Apache-2.0
// Speculation on the generated kernels: a trained model says the same with and without drafts, token for token.
#include <gtest/gtest.h>

#include "jit/jit.h"
#include "models/generate.h"

namespace nibble::models {
namespace {

TEST(Speculation, SaysTheSameOnTheGeneratedKernels) {
  jit::register_kernels();
  if (max_isa() == Isa::generic || !supported(max_isa())) GTEST_SKIP() << "too slow without native kernels";
  const auto model = Model::load(NIBBLE_SOURCE_DIR "/models/tiny/austen.gguf");
  const char* texts[] = {
      "It was a truth. It was a truth. It was a", "\"My dear Mr. Bennet,\" said his lady to him one day, \"my dear",
      "Emma was not at home. Emma was not at home; she", "Once upon a time", "1, 2, 3, 4, 1, 2, 3, 4, 1, 2,"};
  Engine one(model, {.threads = 1}), two(model, {.threads = 2});
  int accepted = 0, seed = 0;
  for (const char* text : texts) {
    const std::vector<int32_t> prompt = model->tokenizer->encode(text);
    for (const float temperature : {0.0f, 0.3f, 0.8f}) {
      GenerateOptions options;
      options.max_tokens = 96;
      options.sampler.temperature = temperature;
      options.sampler.seed = static_cast<uint64_t>(++seed);
      options.sampler.repeat_penalty = seed % 3 == 0 ? 1.05f : 1.0f;
      options.speculate = Speculator::off;
      const GenerateResult plain = Session(one).generate(prompt, options);
      for (const int tokens : {Speculator::automatic, 2, 7, Speculator::max_draft}) {
        options.speculate = tokens;
        const GenerateResult drafted = Session(tokens == 7 ? two : one).generate(prompt, options);
        ASSERT_EQ(drafted.tokens, plain.tokens) << text << ", temperature " << temperature << ", drafts of " << tokens;
        ASSERT_EQ(drafted.text, plain.text);
        if (tokens != Speculator::automatic) accepted += drafted.accepted_tokens;  // which goes by measured time
      }
    }
  }
  EXPECT_GT(accepted, 400) << "the test must reach accepted drafts";
}

}  // namespace
}  // namespace nibble::models
