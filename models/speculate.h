// SPDX-License-Identifier: Apache-2.0
// Drafts for lossless speculation without a second model: what followed the longest earlier match of the last tokens.
// Whether and how far to draft is decided by how often such drafts came true (counted for every step, drafted or not)
// and by what this machine needed for batches of so many rows.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace nibble::models {

/// Seconds of a decode step by its number of rows, from steps that were run; unknown sizes are guessed, hopefully, from
/// the nearest known ones.
class StepCosts {
 public:
  static constexpr int max_rows = 16;
  void measured(int rows, double seconds);
  bool known(int rows) const { return seconds_[rows] > 0; }
  /// Seconds of `rows` rows over those of one; needs known(1).
  double ratio(int rows) const;

 private:
  std::array<double, max_rows + 1> seconds_{};
  std::array<int, max_rows + 1> unseen_{};  ///< steps since the last measurement
};

class Speculator {
 public:
  static constexpr int automatic = -1, off = 0;
  static constexpr int max_draft = StepCosts::max_rows - 1;

  /// `tokens`: automatic, off, or so many in every draft at most, whatever it costs.
  Speculator(int tokens, StepCosts& costs);

  /// Every token of the sequence, prompt included, in order.
  void accept(int32_t token);
  /// Tokens that may come next, at most `limit`; empty when it would not pay. A match that reaches the end goes on with
  /// itself. Valid until the next draft.
  std::span<const int32_t> draft(int64_t limit);

 private:
  static constexpr int shortest = 2, longest = 24, buckets = 8;
  struct Record {
    double hits, trials;
  };
  static int bucket(int length);
  /// The position after the longest match of the last tokens, the latest of equals; sets match_length_, 0 without one.
  void find_match();
  double probability(int length) const;
  int worthwhile(int limit) const;

  int tokens_;
  StepCosts& costs_;
  std::vector<int32_t> history_, previous_;       ///< previous_[i]: where the pair ending at i ended before, or -1
  std::unordered_map<uint64_t, int32_t> latest_;  ///< where a pair of tokens ended last
  size_t match_ = 0;
  int match_length_ = 0;
  std::array<Record, buckets> records_;
  std::array<int32_t, max_draft> draft_;
};

}  // namespace nibble::models
