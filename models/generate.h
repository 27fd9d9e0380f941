// SPDX-License-Identifier: Apache-2.0
// Text generation over an Engine: prompt, sampling, stop conditions, streaming.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "models/decoder.h"
#include "models/speculate.h"
#include "models/text/sampler.h"

namespace nibble::models {

struct GenerateOptions {
  SamplerOptions sampler;
  int max_tokens = -1;                ///< -1: until the end or the context is full
  std::vector<std::string> stop;      ///< texts that end the generation; they are not part of the answer
  std::vector<int32_t> end_tokens = {};  ///< end the generation as the tokenizer's own end tokens do
  bool ignore_eos = false;
  /// Drafts checked in one batch; changes nothing but the speed. Speculator::automatic, off, or 1 to max_draft tokens.
  int speculate = Speculator::automatic;
};

enum class StopReason { end_token, stop_string, max_tokens, context_full, cancelled };

struct GenerateResult {
  std::string text;
  std::vector<int32_t> tokens;        ///< generated, the end token left out
  StopReason reason;
  int prompt_tokens = 0;              ///< a cancelled prompt counts as far as it ran
  int reused_tokens = 0, generated_tokens = 0;
  int drafted_tokens = 0, accepted_tokens = 0;
  double prompt_seconds = 0, generate_seconds = 0;
};

/// A conversation on one sequence of an engine: keeps the tokens, so that the next prompt reuses what it shares.
class Session {
 public:
  explicit Session(Engine& engine, int sequence = 0);
  /// Runs `prompt` (only what follows the longest shared prefix) and generates. `on_text` gets whole characters as they
  /// come and returns false to stop; `cancel` may be set from a signal handler. Throws Error when the prompt alone does
  /// not fit the context, saying both numbers.
  GenerateResult generate(std::span<const int32_t> prompt, const GenerateOptions& options,
                          const std::function<bool(std::string_view)>& on_text = {},
                          const std::atomic<bool>* cancel = nullptr);
  const std::vector<int32_t>& tokens() const { return tokens_; }  ///< what the cache holds

 private:
  /// Logits of the last token; empty when cancelled.
  std::span<const float> run_prompt(std::span<const int32_t> prompt, GenerateResult& result,
                                    const std::atomic<bool>* cancel);
  /// Runs `token` and the draft after it; logits of each.
  std::span<const float> run_step(int32_t token, std::span<const int32_t> draft);
  Engine& engine_;
  int sequence_;
  std::vector<int32_t> tokens_;
  StepCosts costs_;
};

}  // namespace nibble::models
