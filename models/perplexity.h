// SPDX-License-Identifier: Apache-2.0
// How well a model expects a text, and how far its expectations are from those of another model.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "models/decoder.h"
#include "models/io/logits_file.h"

namespace nibble::models {

/// What chunks of a text begin with in place of their own first token: BOS where the model adds it, else -1.
int32_t first_token(const Model& model);

/// As llama.cpp's tool counts it: the text cut into chunks of `context` tokens that begin with
/// first_token(), scored from the middle of each chunk on.
struct PerplexityResult {
  int chunks = 0;
  int64_t scored = 0;
  double nll = 0, perplexity = 0, standard_error = 0;
};
/// `save` is a file for the log-probabilities (LogitsFile); "": none. Throws Error for a text of less than two chunks.
PerplexityResult perplexity(Engine& engine, std::span<const int32_t> tokens, int context, int chunks,
                            const std::function<void(int chunk, double perplexity)>& on_chunk = {},
                            const std::string& save = "");

struct Estimate {
  double value = 0, error = 0;  ///< a mean and its standard error
};

/// Of a model Q against the base model that wrote the log-probabilities, over all scored positions.
struct DivergenceResult {
  int chunks = 0;
  Estimate perplexity, base_perplexity;
  Estimate log_ratio;   ///< ln(perplexity / base_perplexity)
  Estimate divergence;  ///< Kullback-Leibler, of Q from the base, in nats
  Estimate same_top;    ///< share of positions at which both have the same likeliest token
  Estimate change;      ///< of the probability of the text's token
  Estimate rms_change;
  std::vector<float> divergences, changes;  ///< of every position, rising
};
/// Over the text and chunks of `base`, at most `chunks` of them (0 or less: all). Throws Error for another vocabulary.
DivergenceResult compare_logits(
    Engine& engine, const LogitsFile& base, int chunks,
    const std::function<void(int chunk, double perplexity, double divergence)>& on_chunk = {});

/// Between the neighbours in rank, of `sorted` (not empty); share 0 is the lowest, 1 the highest.
float quantile(std::span<const float> sorted, double share);

/// The log of the sum of exp(logits).
double log_sum_exp(std::span<const float> logits);

}  // namespace nibble::models
