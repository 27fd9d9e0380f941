// SPDX-License-Identifier: Apache-2.0
// Cases of the ops of mixtures of experts.
#include <algorithm>
#include <numeric>

#include "tensor/panel.h"
#include "tests/support/op_maker.h"

namespace nibble::test {

namespace {

/// Rows of `count` different experts.
Ints random_choice(Random& random, int64_t m, int64_t experts, int64_t count) {
  Ints chosen;
  for (int64_t i = 0; i < m; i++) {
    Ints all(experts);
    std::iota(all.begin(), all.end(), 0);
    for (int64_t c = 0; c < count; c++) {
      std::swap(all[c], all[random.integer(c, experts - 1)]);
      chosen.push_back(all[c]);
    }
  }
  return chosen;
}

/// Pairs ordered by their experts: what group_experts says.
struct Grouping {
  Ints pairs, begins;

  Grouping(const Ints& chosen, int64_t experts) : pairs(chosen.size()), begins(1, 0) {
    std::iota(pairs.begin(), pairs.end(), 0);
    std::stable_sort(pairs.begin(), pairs.end(), [&](int a, int b) { return chosen[a] < chosen[b]; });
    for (int64_t e = 0; e < experts; e++)
      begins.push_back(begins.back() + static_cast<int32_t>(std::ranges::count(chosen, e)));
  }
  Ints all() const {
    Ints result = begins;
    result.insert(result.end(), pairs.begin(), pairs.end());
    Ints inverse(pairs.size());
    for (size_t row = 0; row < pairs.size(); row++) inverse[pairs[row]] = static_cast<int32_t>(row);
    result.insert(result.end(), inverse.begin(), inverse.end());
    return result;
  }
};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

void add_ints(Maker& mk, const Ints& values) {
  mk.result.in.push_back(TestTensor({static_cast<int64_t>(values.size())}, values));
}

}  // namespace

// Variants: 0 the best logits, 1 sigmoid with a bias, 2 the best groups by their best expert, 3 both, groups by their
// two best.
void choose_experts_case(Maker& mk) {
  const bool biased = mk.variant % 2, limited = mk.variant >= 2;
  const int64_t m = mk.size, size = mk.size, groups = limited ? 4 : 1, kept = limited ? 2 : 1, count = mk.size - 2;
  const int64_t experts = groups * size;
  const Floats logits = mk.floats({m, experts});
  const Floats bias =
      biased ? mk.add({experts}, DType::f32, mk.random.floats(experts, -0.3f, 0.3f)) : Floats(experts, 0.0f);
  mk.result.attrs = {
      {"count", count}, {"score", std::string(biased ? "sigmoid" : "softmax")}, {"bias", int64_t{biased}}};
  if (limited) {
    mk.result.attrs.set("groups", groups);
    mk.result.attrs.set("kept_groups", kept);
    mk.result.attrs.set("group_best", int64_t{biased ? 2 : 1});
  }
  Doubles want;
  for (int64_t i = 0; i < m; i++) {
    Floats scores(experts);
    for (int64_t e = 0; e < experts; e++) {
      const double x = logits[i * experts + e];
      scores[e] = biased ? static_cast<float>(sigmoid(x)) + bias[e] : logits[i * experts + e];
    }
    std::vector<std::pair<double, int64_t>> order;
    for (int64_t g = 0; g < groups; g++) {
      Floats part(scores.begin() + g * size, scores.begin() + (g + 1) * size);
      std::ranges::sort(part, std::greater());
      order.emplace_back(biased ? -(part[0] + part[1]) : -part[0], g);
    }
    std::ranges::sort(order);
    std::vector<std::pair<float, int64_t>> best;
    for (int64_t g = 0; g < kept; g++) {
      for (int64_t e = order[g].second * size; e < (order[g].second + 1) * size; e++) best.emplace_back(-scores[e], e);
    }
    std::ranges::sort(best);
    for (int64_t c = 0; c < count; c++) want.push_back(static_cast<double>(best[c].second));
  }
  mk.want(std::move(want), 0);
}

// Variants: bit 0 sigmoid, bit 1 normalized; all scaled.
void expert_weights_case(Maker& mk) {
  const bool by_sigmoid = mk.variant % 2, normalized = mk.variant >= 2;
  const int64_t m = mk.size, experts = mk.size, count = 3;
  const Floats logits = mk.floats({m, experts});
  const Ints chosen = random_choice(mk.random, m, experts, count);
  mk.ints({m, count}, chosen);
  mk.result.attrs = {
      {"score", std::string(by_sigmoid ? "sigmoid" : "softmax")}, {"normalize", int64_t{normalized}}, {"scale", 2.5}};
  Doubles want;
  for (int64_t i = 0; i < m; i++) {
    const auto score = [&](int64_t e) {
      return by_sigmoid ? sigmoid(logits[i * experts + e]) : std::exp(double{logits[i * experts + e]});
    };
    double sum = by_sigmoid && !normalized ? 1 : 0;
    for (int64_t e = 0; e < experts && !by_sigmoid && !normalized; e++) sum += score(e);
    for (int64_t c = 0; c < count && normalized; c++) sum += score(chosen[i * count + c]);
    for (int64_t c = 0; c < count; c++) want.push_back(2.5 * score(chosen[i * count + c]) / sum);
  }
  mk.want(std::move(want), 1);
}

void group_experts_case(Maker& mk) {
  const int64_t m = mk.variant == 3 ? 1 : 3 * mk.size, experts = mk.size, count = 1 + mk.variant;
  const Ints chosen = random_choice(mk.random, m, experts, count);
  mk.ints({m, count}, chosen);
  mk.result.attrs = {{"experts", experts}};
  const Ints all = Grouping(chosen, experts).all();
  mk.want(Doubles(all.begin(), all.end()), 0);
}

// Variants: 0 plain, 1 grouped with a bias, 2 gate, 3 grouped with a gate.
void matmul_experts_case(Maker& mk, bool quantised) {
  const bool grouped = mk.variant % 2, gate = mk.variant >= 2, biased = mk.variant == 1;
  const int64_t m = mk.size - 3, experts = mk.size, count = 3, n = mk.size + 9, padded = (n + 15) / 16 * 16;
  const int64_t k = quantised ? 32 * mk.size : 3 * mk.size, rows = m * count;
  const QuantLayout layout{.group = 32,
                           .bits = static_cast<uint8_t>(quantised ? 4 : 0),
                           .scale = quantised || mk.size != 7 ? DType::f16 : DType::f32};
  const Ints chosen = random_choice(mk.random, m, experts, count);
  const Grouping grouping(chosen, experts);
  const int64_t x_rows = grouped ? rows : m;
  Doubles x;
  if (quantised) {
    const ActNeeds act = panel_act_needs(layout);
    TestTensor exact({x_rows, k}, DType::f32, mk.random.floats(x_rows * k, -2, 2));
    const Attrs needs = {{"group", int64_t{act.group}}, {"offset", int64_t{act.offset}}, {"bits", int64_t{act.bits}}};
    mk.result.in.push_back(run_reference("quantize", {exact}, needs));
    x = values(mk.result.in[0]);
  } else {
    const Floats kept = mk.floats({x_rows, k});
    x.assign(kept.begin(), kept.end());
  }
  std::vector<RandomPanels> weights;
  for (int w = 0; w < (gate ? 2 : 1); w++) {
    weights.push_back(random_panels(layout, experts * padded, k, mk.random.bits()));
    mk.result.in.push_back(std::move(weights.back().tensor));
    mk.result.formats.push_back(std::move(weights.back().format));
  }
  add_ints(mk, grouping.all());
  const Floats bias =
      biased ? mk.add({experts, n}, DType::f32, mk.random.floats(experts * n)) : Floats(experts * n, 0.0f);
  mk.result.attrs = {
      {"experts", experts}, {"n", n}, {"chosen", count}, {"grouped", int64_t{grouped}}, {"bias", int64_t{biased}}};
  if (gate) mk.result.attrs.set("gate", std::string("silu"));
  // Two fma per weight group, one per activation group, one rounding of the scale; or one fma per k.
  const double roundings = quantised ? static_cast<double>(3 * (k / 32) + 3) : static_cast<double>(k + 1);
  for (int64_t row = 0; row < rows; row++) {
    const int64_t pair = grouping.pairs[row], e = chosen[pair], from = grouped ? row : pair / count;
    for (int64_t column = 0; column < n; column++) {
      double y[2] = {0, 0}, slack[2] = {0, 0};
      for (size_t w = 0; w < weights.size(); w++) {
        for (int64_t j = 0; j < k; j++) {
          const int64_t at = (e * padded + column) * k + j;
          y[w] += x[from * k + j] * weights[w].values[at];
          slack[w] += std::fabs(x[from * k + j]) * weights[w].magnitudes[at];
        }
        slack[w] = roundings * f32_epsilon * slack[w] + 2 * f32_epsilon * std::fabs(y[w]);
      }
      double want = y[0] + bias[e * n + column], bound = slack[0];
      if (gate) {
        const double a = activation("silu", y[0]), slack_a = 1.2 * slack[0] + 2 * f32_epsilon * std::fabs(a);
        want = a * y[1];
        bound = slack_a * std::fabs(y[1]) + slack[1] * std::fabs(a) + slack_a * slack[1];
      }
      mk.result.want.push_back(want);
      mk.result.bound.push_back(bound + 2 * f32_epsilon * std::fabs(want) + 1e-38);
    }
  }
}

void combine_experts_case(Maker& mk) {
  const int64_t m = mk.size, experts = 6, count = 1 + mk.variant, n = 3 * mk.size;
  const Ints chosen = random_choice(mk.random, m, experts, count);
  const Grouping grouping(chosen, experts);
  const Floats y = mk.f32({m * count, n});
  add_ints(mk, grouping.all());
  const Floats weights = mk.f32({m, count});
  const Ints all = grouping.all();
  Doubles want;
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) {
      double sum = 0;
      for (int64_t c = 0; c < count; c++) {
        const int64_t pair = i * count + c, row = all[experts + 1 + m * count + pair];
        sum += double{weights[pair]} * y[row * n + j];
      }
      want.push_back(sum);
    }
  }
  mk.want(std::move(want), 0);
  // One rounding of each partial sum, of terms up to 2 * 2.
  mk.result.bound.assign(mk.result.want.size(), 4.0 * static_cast<double>(count * count) * f32_epsilon);
}

void clamped_swiglu_case(Maker& mk) {
  const double limit = 0.5 * (1 + mk.variant), alpha = 1.702;
  const Shape shape = {mk.size, 3 * mk.size};
  const Floats gate = mk.floats(shape), up = mk.floats(shape);
  mk.result.attrs = {{"limit", limit}, {"alpha", alpha}};
  Doubles want;
  for (size_t i = 0; i < gate.size(); i++) {
    const double g = std::min(double{gate[i]}, limit), u = std::clamp(double{up[i]}, -limit, limit);
    const double y = g * sigmoid(alpha * g) * (u + 1);
    want.push_back(y);
    const double step = mk.dtype == DType::f32 ? 1.2e-7 : mk.dtype == DType::f16 ? 1e-3 : 8e-3;
    mk.result.bound.push_back(step * std::fabs(y) + 1e-7);
  }
  mk.result.want = std::move(want);
}

}  // namespace nibble::test
