// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "models/generate.h"
#include "tensor/check.h"

namespace nibble::models {

namespace {

/// -log of the probability of `token`.
double negative_log_likelihood(std::span<const float> logits, int32_t token) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) sum += std::exp(double{logit} - double{largest});
  return std::log(sum) + double{largest} - double{logits[token]};
}

}  // namespace

PerplexityResult perplexity(Engine& engine, std::span<const int32_t> tokens, int context, int chunks,
                            const std::function<void(int, double)>& on_chunk) {
  NIBBLE_CHECK(context >= 4 && context <= engine.context(), "perplexity: expected a context of 4 to ", engine.context(),
               " tokens, found ", context);
  const auto available = static_cast<int>(std::min<size_t>(tokens.size() / static_cast<size_t>(context), 1 << 30));
  NIBBLE_CHECK(available >= 2, "perplexity: the text has ", tokens.size(), " tokens, at least ", 2 * context,
               " are needed for a context of ", context);
  const Tokenizer* tokenizer = engine.model().tokenizer.get();
  const bool bos = tokenizer != nullptr && tokenizer->adds_bos() && tokenizer->bos() >= 0;
  const auto vocab = static_cast<size_t>(engine.model().config.vocab);
  // scored are the tokens after positions first ... context - 2
  const int first = context / 2, scored = context - 1 - first;
  PerplexityResult result;
  double squares = 0;
  std::vector<Row> rows(static_cast<size_t>(context));
  for (int chunk = 0; chunk < (chunks > 0 ? std::min(chunks, available) : available); ++chunk) {
    const std::span<const int32_t> text = tokens.subspan(static_cast<size_t>(chunk) * static_cast<size_t>(context), context);
    for (int i = 0; i < context; ++i) rows[i] = {text[i], i, 0, i >= first && i < first + scored};
    if (bos) rows[0].token = tokenizer->bos();
    const std::span<const float> logits = engine.run(rows);
    for (int i = 0; i < scored; ++i) {
      const double nll = negative_log_likelihood(logits.subspan(static_cast<size_t>(i) * vocab, vocab), text[first + i + 1]);
      result.nll += nll;
      squares += nll * nll;
    }
    result.chunks = chunk + 1;
    result.scored += scored;
    const auto count = static_cast<double>(result.scored);
    const double mean = result.nll / count;
    result.perplexity = std::exp(mean);
    const double variance = squares / count - mean * mean;
    result.standard_error = result.scored > 1 && variance > 0 ? result.perplexity * std::sqrt(variance / (count - 1)) : 0;
    if (on_chunk) on_chunk(result.chunks, result.perplexity);
  }
  return result;
}

}  // namespace nibble::models
