// SPDX-License-Identifier: Apache-2.0
#include "models/perplexity.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "tensor/check.h"

namespace nibble::models {

namespace {

/// Runs chunks of a text and hands out the logits of the scored positions.
class ChunkRunner {
 public:
  ChunkRunner(Engine& engine, const LogitsShape& shape)
      : engine_(engine),
        shape_(shape),
        pool_(engine.threads()),
        rows_(static_cast<size_t>(shape.context)),
        bos_(first_token(engine.model())) {}

  /// visit(index, logits, the token that follows) for all scored positions, on several threads.
  template <class Visit>
  void run(std::span<const int32_t> text, const Visit& visit) {
    const int first = shape_.first(), scored = shape_.scored();
    for (int i = 0; i < shape_.context; ++i) rows_[i] = {text[i], i, 0, i >= first && i < first + scored};
    if (bos_ >= 0) rows_[0].token = bos_;
    const std::span<const float> logits = engine_.run(rows_);
    const auto vocab = static_cast<size_t>(shape_.vocab);
    pool_.for_each(scored, 4, [&](int64_t begin, int64_t end, const Worker&) {
      for (int64_t i = begin; i < end; ++i)
        visit(static_cast<size_t>(i), logits.subspan(static_cast<size_t>(i) * vocab, vocab), text[first + i + 1]);
    });
  }

 private:
  Engine& engine_;
  LogitsShape shape_;
  ThreadPool pool_;
  std::vector<Row> rows_;
  int32_t bos_;
};

/// Sums of a quantity and of its square.
struct Sums {
  double sum = 0, squares = 0;
  int64_t count = 0;
  void add(double value) {
    sum += value;
    squares += value * value;
    ++count;
  }
  Estimate mean() const {
    if (count == 0) return {};
    const double number = static_cast<double>(count), value = sum / number, variance = squares / number - value * value;
    return {value, count > 1 && variance > 0 ? std::sqrt(variance / (number - 1)) : 0};
  }
};

Estimate exp_of(const Estimate& log) { return {std::exp(log.value), std::exp(log.value) * log.error}; }

struct Compared {
  double nll, base_nll, divergence;
  bool same_top;
};

Compared compare_row(std::span<const float> logits, const LogProbs& base, int32_t token) {
  // whoever is further down has no weight: the file stores nothing finer
  constexpr float negligible = -16;
  const auto log_sum = static_cast<float>(log_sum_exp(logits));
  double divergence = 0;
  size_t top = 0, base_top = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > logits[top]) top = i;
    if (base.codes[i] > base.codes[base_top]) base_top = i;
    const float log_base = base[static_cast<int64_t>(i)];
    if (log_base > negligible) divergence += double{std::exp(log_base) * (log_base - logits[i] + log_sum)};
  }
  return {double{log_sum - logits[token]}, -double{base[token]}, divergence, top == base_top};
}

}  // namespace

int32_t first_token(const Model& model) {
  const Tokenizer* tokenizer = model.tokenizer.get();
  return tokenizer != nullptr && tokenizer->adds_bos() ? tokenizer->bos() : -1;
}

double log_sum_exp(std::span<const float> logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) sum += double{std::exp(logit - largest)};
  return double{largest} + std::log(sum);
}

float quantile(std::span<const float> sorted, double share) {
  const double rank = std::clamp(share, 0.0, 1.0) * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(rank);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  const double part = rank - static_cast<double>(below);
  return static_cast<float>((1 - part) * double{sorted[below]} + part * double{sorted[above]});
}

PerplexityResult perplexity(Engine& engine, std::span<const int32_t> tokens, int context, int chunks,
                            const std::function<void(int, double)>& on_chunk, const std::string& save) {
  NIBBLE_CHECK(context >= 4 && context <= engine.context(), "perplexity: expected a context of 4 to ", engine.context(),
               " tokens, found ", context);
  const auto available = static_cast<int>(std::min<size_t>(tokens.size() / static_cast<size_t>(context), 1 << 24));
  NIBBLE_CHECK(available >= 2, "perplexity: the text has ", tokens.size(), " tokens, at least ", 2 * context,
               " are needed for a context of ", context);
  const LogitsShape shape{.context = context, .vocab = engine.model().config.vocab,
                          .chunks = chunks > 0 ? std::min(chunks, available) : available};
  const auto size = static_cast<size_t>(context);
  std::optional<LogitsWriter> writer;
  if (!save.empty()) writer.emplace(save, shape, tokens.first(static_cast<size_t>(shape.chunks) * size));
  std::vector<std::byte> saved(writer ? static_cast<size_t>(shape.scored()) * shape.row_bytes() : 0);
  std::vector<double> nll(static_cast<size_t>(shape.scored()));
  ChunkRunner runner(engine, shape);
  PerplexityResult result;
  Sums sums;
  for (int chunk = 0; chunk < shape.chunks; ++chunk) {
    runner.run(tokens.subspan(static_cast<size_t>(chunk) * size, size), [&](size_t i, std::span<const float> logits,
                                                                            int32_t token) {
      const double log_sum = log_sum_exp(logits);
      nll[i] = log_sum - double{logits[token]};
      if (writer) encode_log_probs(logits, log_sum, std::span(saved).subspan(i * shape.row_bytes(), shape.row_bytes()));
    });
    if (writer) writer->write(saved);
    for (double value : nll) sums.add(value);
    const Estimate estimate = exp_of(sums.mean());
    result = {.chunks = chunk + 1,
              .scored = sums.count,
              .nll = sums.sum,
              .perplexity = estimate.value,
              .standard_error = estimate.error};
    if (on_chunk) on_chunk(result.chunks, result.perplexity);
  }
  if (writer) writer->finish();
  return result;
}

DivergenceResult compare_logits(Engine& engine, const LogitsFile& base, int chunks,
                                const std::function<void(int, double, double)>& on_chunk) {
  LogitsShape shape = base.shape();
  NIBBLE_CHECK(shape.vocab == engine.model().config.vocab,
               "log-probabilities to compare with: expected a vocabulary of ", engine.model().config.vocab,
               " tokens, found ", shape.vocab);
  NIBBLE_CHECK(shape.context <= engine.context(), "log-probabilities to compare with: expected a context of at most ",
               engine.context(), " tokens, found ", shape.context);
  if (chunks > 0) shape.chunks = std::min(shape.chunks, chunks);
  std::vector<Compared> rows(static_cast<size_t>(shape.scored()));
  ChunkRunner runner(engine, shape);
  Sums nll, base_nll, ratio, divergence, change, square_change, same;
  DivergenceResult result;
  for (int chunk = 0; chunk < shape.chunks; ++chunk) {
    for (const int32_t token : base.tokens(chunk))
      NIBBLE_CHECK(token >= 0 && token < shape.vocab, "log-probabilities to compare with: token ", token, " of chunk ",
                   chunk, " is not in the vocabulary of ", shape.vocab);
    runner.run(base.tokens(chunk), [&](size_t i, std::span<const float> logits, int32_t token) {
      rows[i] = compare_row(logits, base.row(chunk, static_cast<int>(i)), token);
    });
    base.release(chunk);
    for (const Compared& row : rows) {
      const double moved = std::exp(-row.nll) - std::exp(-row.base_nll);
      nll.add(row.nll);
      base_nll.add(row.base_nll);
      ratio.add(row.nll - row.base_nll);
      divergence.add(row.divergence);
      same.add(row.same_top ? 1 : 0);
      change.add(moved);
      square_change.add(moved * moved);
      result.divergences.push_back(static_cast<float>(row.divergence));
      result.changes.push_back(static_cast<float>(moved));
    }
    if (on_chunk) on_chunk(chunk + 1, std::exp(nll.mean().value), divergence.mean().value);
  }
  result.chunks = shape.chunks;
  result.perplexity = exp_of(nll.mean());
  result.base_perplexity = exp_of(base_nll.mean());
  result.log_ratio = ratio.mean();
  result.divergence = divergence.mean();
  result.same_top = same.mean();
  result.change = change.mean();
  const Estimate mean_square = square_change.mean();
  const double rms = std::sqrt(mean_square.value);
  result.rms_change = {rms, rms > 0 ? 0.5 / rms * mean_square.error : 0};
  std::sort(result.divergences.begin(), result.divergences.end());
  std::sort(result.changes.begin(), result.changes.end());
  return result;
}

}  // namespace nibble::models
