// SPDX-License-Identifier: Apache-2.0
#include "models/speculate.h"

#include <algorithm>

namespace nibble::models {

namespace {
// Matches of so many tokens share a record of how often the next token came true. Until there is one, these are
// believed, with the weight of `belief` trials: below what repeating texts reach, above what free text does.
constexpr std::array<int, 8> first_length = {2, 3, 4, 5, 7, 10, 15, 20};
constexpr std::array<double, 8> expected = {0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.8, 0.85};
constexpr double belief = 4;
constexpr double fading = 0.98;        // a record remembers about 50 trials
constexpr double worth = 1.05;         // of the expected gain; less is within the error of the estimates
constexpr int candidates = 64;         // earlier occurrences compared
constexpr double optimism = 0.12;      // a row's cost where nothing is known: too low is found out by one step
// Steps of these sizes only: each has a plan to compile, which takes as long as a step of a small model.
constexpr auto plan_rows = [] {
  std::array<bool, StepCosts::max_rows + 1> rows{};
  for (const int count : {2, 3, 4, 8, 16}) rows[static_cast<size_t>(count)] = true;
  return rows;
}();
constexpr int relearn_after = 256;     // steps until an old measurement stands back behind a guess
}  // namespace

void StepCosts::measured(int rows, double seconds) {
  for (int& steps : unseen_) ++steps;
  if (rows < 1 || rows > max_rows || !(seconds > 0)) return;
  double& mean = seconds_[rows];
  // a step that was disturbed, or the first one, counts little
  mean = mean > 0 ? mean + (std::min(seconds, 2 * mean) - mean) * (seconds < mean ? 0.5 : 0.125) : seconds;
  unseen_[rows] = 0;
}

double StepCosts::ratio(int rows) const {
  const auto usable = [&](int r) { return r == 1 || (known(r) && unseen_[r] < relearn_after); };
  if (usable(rows)) return seconds_[rows] / seconds_[1];
  int below = rows, above = rows;
  while (!usable(below)) --below;
  while (above < max_rows && !usable(above)) ++above;
  if (usable(above))  // at most linear in between
    return (seconds_[below] + (seconds_[above] - seconds_[below]) * (rows - below) / (above - below)) / seconds_[1];
  return seconds_[below] / seconds_[1] + optimism * (rows - below);
}

Speculator::Speculator(int tokens, StepCosts& costs) : tokens_(std::min(tokens, max_draft)), costs_(costs) {
  for (size_t i = 0; i < records_.size(); ++i) records_[i] = {expected[i] * belief, belief};
}

int Speculator::bucket(int length) {
  int i = buckets - 1;
  while (i > 0 && length < first_length[i]) --i;
  return i;
}

double Speculator::probability(int length) const {
  const Record& record = records_[bucket(length)];
  return record.hits / record.trials;
}

void Speculator::accept(int32_t token) {
  if (tokens_ == off) return;
  if (match_length_ > 0) {
    const int i = bucket(match_length_);
    Record& record = records_[i];
    record.hits = fading * record.hits + (1 - fading) * expected[i] * belief + (history_[match_] == token ? 1 : 0);
    record.trials = fading * record.trials + (1 - fading) * belief + 1;
  }
  history_.push_back(token);
  previous_.push_back(-1);
  match_length_ = 0;
  if (history_.size() < 2) return;
  const auto end = static_cast<int32_t>(history_.size()) - 1;
  const uint64_t pair =
      static_cast<uint64_t>(static_cast<uint32_t>(history_[end - 1])) << 32 | static_cast<uint32_t>(token);
  const auto [at, first] = latest_.try_emplace(pair, end);
  if (first) return;
  previous_[end] = at->second;
  at->second = end;
  find_match();
}

void Speculator::find_match() {
  const auto end = static_cast<int32_t>(history_.size()) - 1;
  int32_t at = previous_[end];
  for (int tried = 0; at >= 0 && tried < candidates && match_length_ < longest; ++tried, at = previous_[at]) {
    int length = shortest;
    while (length < longest && length <= at && history_[at - length] == history_[end - length]) ++length;
    if (length <= match_length_) continue;
    match_length_ = length;
    match_ = static_cast<size_t>(at) + 1;
  }
}

/// The draft with the most tokens per second.
int Speculator::worthwhile(int limit) const {
  if (!costs_.known(1)) return 0;
  int best = 0;
  double best_gain = worth, gained = 1, all = 1;
  for (int count = 1; count <= limit; ++count) {
    all *= probability(match_length_ + count - 1);
    gained += all;
    if (!plan_rows[static_cast<size_t>(count) + 1]) continue;
    const double gain = gained / costs_.ratio(count + 1);
    if (gain > best_gain) {
      best_gain = gain;
      best = count;
    }
  }
  return best;
}

std::span<const int32_t> Speculator::draft(int64_t limit) {
  if (tokens_ == off || match_length_ == 0 || limit <= 0) return {};
  const auto most = static_cast<int>(std::min<int64_t>(tokens_ == automatic ? max_draft : tokens_, limit));
  const int count = tokens_ == automatic ? worthwhile(most) : most;
  const size_t known = history_.size() - match_;
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) draft_[i] = history_[match_ + i % known];
  return std::span(draft_).first(static_cast<size_t>(count));
}

}  // namespace nibble::models
