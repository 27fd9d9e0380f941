// SPDX-License-Identifier: Apache-2.0
#include "models/text/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "tensor/check.h"

namespace nibble::models {

namespace {

// Best first; equal logits by id, so that the order does not depend on how it was found.
constexpr auto better = [](const auto& a, const auto& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
};

/// Softmax of the candidates, which are sorted or not; the sum is over double.
template <class Candidates>
void softmax(Candidates& candidates) {
  float top = -INFINITY;
  for (const auto& c : candidates) top = std::max(top, c.logit);
  double sum = 0;
  for (auto& c : candidates) sum += c.probability = std::exp(c.logit - top);
  for (auto& c : candidates) c.probability = static_cast<float>(c.probability / sum);
}

template <class Candidates>
void keep_typical(Candidates& candidates, float p, size_t min_keep) {
  softmax(candidates);
  double entropy = 0;
  for (const auto& c : candidates)
    if (c.probability > 0) entropy -= c.probability * std::log(static_cast<double>(c.probability));
  const auto surprise = [&](const auto& c) {
    return c.probability > 0 ? std::abs(-std::log(static_cast<double>(c.probability)) - entropy) : double{INFINITY};
  };
  std::sort(candidates.begin(), candidates.end(), [&](const auto& a, const auto& b) {
    const double left = surprise(a), right = surprise(b);
    return left != right ? left < right : better(a, b);
  });
  double sum = 0;
  size_t kept = 0;
  while (kept < candidates.size()) {
    sum += candidates[kept++].probability;
    if (sum > p && kept >= min_keep) break;
  }
  candidates.resize(kept);
  std::sort(candidates.begin(), candidates.end(), better);
}

/// Needs sorted candidates.
template <class Candidates>
void keep_top_p(Candidates& candidates, float p, size_t min_keep) {
  softmax(candidates);
  double sum = 0;
  size_t kept = 0;
  while (kept < candidates.size()) {
    sum += candidates[kept++].probability;
    if (sum >= p && kept >= min_keep) break;
  }
  candidates.resize(kept);
}

/// Needs sorted candidates.
template <class Candidates>
void keep_min_p(Candidates& candidates, float p, size_t min_keep) {
  const float least = candidates.front().logit + std::log(p);
  size_t kept = 0;
  while (kept < candidates.size() && (candidates[kept].logit >= least || kept < min_keep)) ++kept;
  candidates.resize(kept);
}

void check_range(const char* option, double value, double low, double high) {
  NIBBLE_CHECK(value >= low && value <= high, "sampler: ", option, " is ", value, "; expected ", low, " to ", high);
}

}  // namespace

void check(const SamplerOptions& options) {
  check_range("temperature", options.temperature, -1e6, 1e6);
  check_range("top_k", options.top_k, INT32_MIN, INT32_MAX);
  check_range("top_p", options.top_p, 0, 1e6);
  check_range("min_p", options.min_p, -1e6, 1);
  check_range("typical_p", options.typical_p, 0, 1e6);
  check_range("repeat_last_n", options.repeat_last_n, -1, INT32_MAX);
  NIBBLE_CHECK(options.repeat_penalty > 0 && options.repeat_penalty <= 1e6, "sampler: repeat_penalty is ",
               options.repeat_penalty, "; expected more than 0, at most 1e6");
  check_range("frequency_penalty", options.frequency_penalty, -1e6, 1e6);
  check_range("presence_penalty", options.presence_penalty, -1e6, 1e6);
  check_range("min_keep", options.min_keep, 0, INT32_MAX);
}

Sampler::Sampler(const SamplerOptions& options) : options_(options), random_(options.seed) { check(options); }

void Sampler::accept(int32_t token) { history_.push_back(token); }

std::span<const float> Sampler::penalise(std::span<const float> logits) {
  const SamplerOptions& o = options_;
  const bool off = o.repeat_penalty == 1 && o.frequency_penalty == 0 && o.presence_penalty == 0;
  const size_t all = history_.size();
  const size_t last = o.repeat_last_n < 0 ? all : std::min(all, static_cast<size_t>(o.repeat_last_n));
  if (off || last == 0) return logits;
  std::unordered_map<int32_t, int> counts;
  for (size_t i = all - last; i < all; ++i) ++counts[history_[i]];
  penalised_.assign(logits.begin(), logits.end());
  for (const auto& [token, count] : counts) {
    if (token < 0 || static_cast<size_t>(token) >= logits.size()) continue;
    float& logit = penalised_[static_cast<size_t>(token)];
    // Dividing a negative logit would reward the repetition.
    logit = logit > 0 ? logit / o.repeat_penalty : logit * o.repeat_penalty;
    logit -= static_cast<float>(count) * o.frequency_penalty + o.presence_penalty;
  }
  return penalised_;
}

/// The k best, sorted. Most of a vocabulary is looked at once and dropped.
void Sampler::collect(std::span<const float> logits, size_t k) {
  // A larger heap would itself be the work.
  const bool heap = k <= 1024 && k < logits.size();
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > -INFINITY)) continue;  // NaN as well
    const Candidate next{std::min(logits[i], std::numeric_limits<float>::max()), 0, static_cast<int32_t>(i)};
    if (!heap || candidates_.size() < k) {
      candidates_.push_back(next);
      if (heap) std::push_heap(candidates_.begin(), candidates_.end(), better);
    } else if (next.logit > candidates_.front().logit) {  // the front is the worst of the k
      std::pop_heap(candidates_.begin(), candidates_.end(), better);
      candidates_.back() = next;
      std::push_heap(candidates_.begin(), candidates_.end(), better);
    }
  }
  NIBBLE_CHECK(!candidates_.empty(), "sampler: all ", logits.size(), " logits are NaN or -inf");
  if (k < candidates_.size()) {
    std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(k), candidates_.end(), better);
    candidates_.resize(k);
  }
  std::sort(candidates_.begin(), candidates_.end(), better);
}

int32_t Sampler::draw() {
  const float temperature = options_.temperature;
  // The best logit is taken off first, so that a tiny temperature cannot overflow.
  const float top = candidates_.front().logit;
  for (Candidate& c : candidates_) c.logit = (c.logit - top) / temperature;
  double sum = 0;
  for (Candidate& c : candidates_) sum += c.probability = std::exp(c.logit);
  double left = static_cast<double>(random_() >> 11) * 0x1p-53 * sum;  // uniform in [0, sum)
  for (const Candidate& c : candidates_) {
    left -= c.probability;
    if (left < 0) return c.token;
  }
  return candidates_.front().token;
}

int32_t Sampler::sample(std::span<const float> logits) {
  NIBBLE_CHECK(!logits.empty(), "sampler: there are no logits");
  const SamplerOptions& o = options_;
  const auto min_keep = static_cast<size_t>(std::max(1, o.min_keep));
  const size_t k = o.temperature <= 0 ? 1
                   : o.top_k <= 0     ? logits.size()
                                      : std::max(static_cast<size_t>(o.top_k), min_keep);
  collect(penalise(logits), k);
  if (o.temperature <= 0) return candidates_.front().token;
  if (o.typical_p < 1) keep_typical(candidates_, o.typical_p, min_keep);
  if (o.top_p < 1) keep_top_p(candidates_, o.top_p, min_keep);
  if (o.min_p > 0) keep_min_p(candidates_, o.min_p, min_keep);
  return draw();
}

}  // namespace nibble::models
