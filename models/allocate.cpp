// SPDX-License-Identifier: Apache-2.0
#include "models/allocate.h"

#include <algorithm>
#include <limits>

#include "tensor/check.h"

namespace nibble::models {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// One way to choose for the first items.
struct State {
  uint64_t bytes = 0;
  double loss = 0;
  uint32_t before = 0, choice = 0;  ///< the state for one item fewer, and the last item's choice
};

class Allocator {
 public:
  Allocator(std::span<const std::vector<Choice>> items, uint64_t budget) : items_(items), budget_(budget) {
    uint64_t least = 0;
    for (const auto& item : items_) {
      NIBBLE_CHECK(!item.empty(), "choosing: an item has no choices");
      least += std::min_element(item.begin(), item.end(), [](const Choice& a, const Choice& b) {
                 return a.bytes < b.bytes;
               })->bytes;
    }
    NIBBLE_CHECK(least <= budget_, "the smallest choices take ", least, " bytes, more than the ", budget_, " allowed");
  }

  std::vector<size_t> solve(size_t limit) {
    find_price();
    find_bounds();
    std::vector<size_t> best = greedy();
    const double known = total_loss(best);
    std::vector<std::vector<State>> steps{{State{}}};
    for (size_t i = 0; i < items_.size(); ++i) {
      steps.push_back(extend(steps.back(), i, known));
      thin(steps.back(), i + 1, limit);
    }
    const State* last = nullptr;
    for (const State& state : steps.back())
      if (last == nullptr || state.loss < last->loss) last = &state;
    if (last == nullptr || !(last->loss < known)) return best;
    uint32_t at = static_cast<uint32_t>(last - steps.back().data());
    for (size_t i = items_.size(); i-- > 0; at = steps[i + 1][at].before) best[i] = steps[i + 1][at].choice;
    return best;
  }

 private:
  /// What minimises loss + price * bytes; of equals the smallest.
  size_t cheapest(const std::vector<Choice>& item, double price) const {
    size_t best = 0;
    const auto cost = [&](const Choice& c) { return c.loss + price * static_cast<double>(c.bytes); };
    for (size_t i = 1; i < item.size(); ++i)
      if (cost(item[i]) < cost(item[best]) || (cost(item[i]) == cost(item[best]) && item[i].bytes < item[best].bytes))
        best = i;
    return best;
  }

  uint64_t bytes_at(double price) const {
    uint64_t sum = 0;
    for (const auto& item : items_) sum += item[cheapest(item, price)].bytes;
    return sum;
  }

  /// The least price of a byte at which the cheapest choices fit.
  void find_price() {
    if (bytes_at(0) <= budget_) return;
    double low = 0, high = 1e-30;
    while (high < 1e300 && bytes_at(high) > budget_) low = high, high *= 16;
    for (int i = 0; i < 100; ++i) {
      const double middle = (low + high) / 2;
      (bytes_at(middle) > budget_ ? low : high) = middle;
    }
    price_ = high;
  }

  /// rest_[i]: the least loss + price * bytes of the items from i on.
  void find_bounds() {
    rest_.assign(items_.size() + 1, 0);
    for (size_t i = items_.size(); i-- > 0;) {
      const Choice& c = items_[i][cheapest(items_[i], price_)];
      rest_[i] = rest_[i + 1] + c.loss + price_ * static_cast<double>(c.bytes);
    }
  }

  /// No completion of the state can lose less than this.
  double bound(const State& state, size_t items) const {
    return state.loss + rest_[items] - price_ * static_cast<double>(budget_ - state.bytes);
  }

  /// The cheapest at the price, then what is left of the budget spent where it helps most per byte.
  std::vector<size_t> greedy() const {
    std::vector<size_t> chosen;
    uint64_t used = 0;
    for (const auto& item : items_) {
      chosen.push_back(cheapest(item, price_));
      used += item[chosen.back()].bytes;
    }
    if (used > budget_) {
      used = 0;
      for (size_t i = 0; i < items_.size(); ++i) {
        chosen[i] = cheapest(items_[i], infinity_price);
        used += items_[i][chosen[i]].bytes;
      }
    }
    while (true) {
      double best = 0;
      size_t item = 0, choice = 0;
      for (size_t i = 0; i < items_.size(); ++i) {
        const Choice& now = items_[i][chosen[i]];
        for (size_t c = 0; c < items_[i].size(); ++c) {
          const Choice& other = items_[i][c];
          if (!(other.loss < now.loss) || other.bytes > now.bytes + (budget_ - used)) continue;
          const double gain = (now.loss - other.loss) / static_cast<double>(std::max<uint64_t>(
                                                            1, other.bytes - std::min(now.bytes, other.bytes)));
          if (gain > best) best = gain, item = i, choice = c;
        }
      }
      if (best == 0) return chosen;
      used = used - items_[item][chosen[item]].bytes + items_[item][choice].bytes;
      chosen[item] = choice;
    }
  }

  double total_loss(const std::vector<size_t>& chosen) const {
    double sum = 0;
    for (size_t i = 0; i < items_.size(); ++i) sum += items_[i][chosen[i]].loss;
    return sum;
  }

  /// The states with one more item that may still beat `known`: rising in bytes, falling in loss.
  std::vector<State> extend(const std::vector<State>& states, size_t item, double known) const {
    std::vector<State> all;
    for (size_t s = 0; s < states.size(); ++s)
      for (size_t c = 0; c < items_[item].size(); ++c) {
        const Choice& choice = items_[item][c];
        if (choice.bytes > budget_ - states[s].bytes) continue;
        const State next{states[s].bytes + choice.bytes, states[s].loss + choice.loss, static_cast<uint32_t>(s),
                         static_cast<uint32_t>(c)};
        if (bound(next, item + 1) <= known) all.push_back(next);
      }
    std::stable_sort(all.begin(), all.end(), [](const State& a, const State& b) {
      return a.bytes != b.bytes ? a.bytes < b.bytes : a.loss < b.loss;
    });
    std::vector<State> kept;
    for (const State& state : all)
      if (kept.empty() || state.loss < kept.back().loss) kept.push_back(state);
    return kept;
  }

  void thin(std::vector<State>& states, size_t items, size_t limit) const {
    if (states.size() <= limit) return;
    const auto better = [&](const State& a, const State& b) {
      const double x = bound(a, items), y = bound(b, items);
      return x != y ? x < y : a.bytes < b.bytes;
    };
    std::nth_element(states.begin(), states.begin() + static_cast<std::ptrdiff_t>(limit), states.end(), better);
    states.resize(limit);
    std::sort(states.begin(), states.end(), [](const State& a, const State& b) { return a.bytes < b.bytes; });
  }

  static constexpr double infinity_price = 1e300;

  std::span<const std::vector<Choice>> items_;
  uint64_t budget_;
  double price_ = 0;
  std::vector<double> rest_;
};

}  // namespace

std::vector<size_t> allocate(std::span<const std::vector<Choice>> items, uint64_t budget, size_t states) {
  return Allocator(items, budget).solve(states);
}

}  // namespace nibble::models
