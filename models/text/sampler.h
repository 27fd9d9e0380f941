// SPDX-License-Identifier: Apache-2.0
// Choosing the next token, under llama.cpp's names and defaults.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace nibble::models {

struct SamplerOptions {
  float temperature = 0.8f;  ///< <= 0: greedy (the highest logit after penalties; ties to the lowest id)
  int top_k = 40;            ///< <= 0: off
  float top_p = 0.95f;       ///< >= 1: off
  float min_p = 0.05f;       ///< <= 0: off
  float typical_p = 1.0f;    ///< >= 1: off
  int repeat_last_n = 64;    ///< tokens the penalties look back; 0: off, -1: all
  float repeat_penalty = 1.0f;
  float frequency_penalty = 0.0f;
  float presence_penalty = 0.0f;
  uint64_t seed = 0;  ///< the same seed, options and logits give the same tokens
  int min_keep = 1;
};
/// Throws Error naming the option that is out of range.
void check(const SamplerOptions& options);

/// Chain: penalties, top-k, typical, top-p, min-p, temperature, draw. One per sequence.
class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options);
  /// Every token of the sequence, prompt included, in order; feeds the penalties.
  void accept(int32_t token);
  /// logits (vocab); a NaN counts as -inf. Throws Error if all are NaN or -inf.
  int32_t sample(std::span<const float> logits);

 private:
  SamplerOptions options_;
  std::vector<int32_t> history_;
  std::mt19937_64 random_;
  struct Candidate {
    float logit, probability;
    int32_t token;
  };
  std::span<const float> penalise(std::span<const float> logits);
  void collect(std::span<const float> logits, size_t k);
  int32_t draw();
  std::vector<Candidate> candidates_;
  std::vector<float> penalised_;
};

}  // namespace nibble::models
