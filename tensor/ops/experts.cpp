// SPDX-License-Identifier: Apache-2.0
// Mixture of experts: which experts a row takes, what each of them counts, and the way there and back.
// choose_experts: logits f (m, e) [, bias f32 (e)] -> i32 (m, count)
// expert_weights: logits f (m, e), chosen i32 (m, count) -> f32 (m, count)
// group_experts: chosen i32 (m, count) -> i32 (e + 1 + 2 m count), see ExpertGroups
// combine_experts: y f32 (m count, n) grouped, groups, weights f32 (m, count) -> f32 (m, n)
#include "tensor/ops/experts.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace nibble::ops {

namespace {

enum class Score : unsigned char { softmax, sigmoid };

Score parse_score(const Attrs& attrs) {
  const std::string name = attrs.s("score", "softmax");
  if (name == "softmax") return Score::softmax;
  NIBBLE_CHECK(name == "sigmoid", "score: expected softmax or sigmoid, found '", name, "'");
  return Score::sigmoid;
}

/// How experts are limited to the best groups of them.
struct Limit {
  int64_t groups, kept;
  int best;  ///< so many of a group's experts make its score

  Limit(const Attrs& attrs, int64_t experts, int64_t count)
      : groups(attrs.i("groups", 1)),
        kept(attrs.i("kept_groups", groups)),
        best(static_cast<int>(attrs.i("group_best", 1))) {
    NIBBLE_CHECK(groups >= 1 && experts % groups == 0, "groups ", groups, ": expected a divisor of ", experts,
                 " experts");
    NIBBLE_CHECK(kept >= 1 && kept <= groups, "kept_groups ", kept, ": expected 1 to ", groups);
    NIBBLE_CHECK(best == 1 || best == 2, "group_best ", best, ": expected 1 or 2");
    NIBBLE_CHECK(count <= experts / groups * kept, "count ", count, ": ", kept, " of ", groups, " groups have ",
                 experts / groups * kept, " experts");
  }
};

/// True if a stands in front of b: larger, or equal and of a lower index; NaN is last.
bool in_front(float a, int64_t a_index, float b, int64_t b_index) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) == std::isnan(b) ? a_index < b_index : std::isnan(b);
  return a > b || (a == b && a_index < b_index);
}

float group_score(const float* scores, int64_t size, int best) {
  float first = -INFINITY, second = -INFINITY;
  for (int64_t e = 0; e < size; ++e) {
    second = std::max(second, std::min(scores[e], first));
    first = std::max(first, scores[e]);
  }
  return best == 1 || size == 1 ? first : first + second;
}

/// Scores outside of the kept groups become NaN, which is chosen last. A group is kept when fewer than `kept` are in
/// front.
void drop_groups(const Limit& limit, int64_t experts, float* scores, float* of_groups) {
  if (limit.kept == limit.groups) return;
  const int64_t size = experts / limit.groups;
  for (int64_t g = 0; g < limit.groups; ++g) of_groups[g] = group_score(scores + g * size, size, limit.best);
  for (int64_t g = 0; g < limit.groups; ++g) {
    int64_t ahead = 0;
    for (int64_t other = 0; other < limit.groups; ++other) ahead += in_front(of_groups[other], other, of_groups[g], g);
    if (ahead >= limit.kept) std::fill_n(scores + g * size, size, NAN);
  }
}

/// The first one behind `last` (-1: of all) in the order of in_front.
int64_t next_best(const float* scores, int64_t experts, int64_t last) {
  int64_t best = -1;
  for (int64_t e = 0; e < experts; ++e) {
    if (last >= 0 && !in_front(scores[last], last, scores[e], e)) continue;
    if (best < 0 || in_front(scores[e], e, scores[best], best)) best = e;
  }
  return best;
}

TensorDesc infer_choose(std::span<const TensorDesc> in, const Attrs& attrs) {
  const bool bias = attrs.i("bias", 0) != 0;
  check_count(in, bias ? 2 : 1, bias ? 2 : 1);
  check_float(in[0], "logits");
  check_rank(in[0], 2, "logits");
  const int64_t experts = in[0].shape[1], count = attrs.i("count");
  if (bias) {
    check_dtype(in[1], DType::f32, "bias");
    check_shape(in[1], {experts}, "bias");
  }
  NIBBLE_CHECK(count >= 1 && count <= experts, "count ", count, ": expected 1 to ", experts);
  NIBBLE_CHECK(parse_score(attrs) == Score::sigmoid || !bias, "bias: softmax scores have none");
  const Limit limit(attrs, experts, count);
  return {{in[0].shape[0], count}, DType::i32, nullptr};
}

void choose(const KernelArgs& args) {
  // grows once: a plan that runs again allocates nothing
  thread_local std::vector<float> scratch;
  scratch.resize(std::max(scratch.size(), static_cast<size_t>(choose_experts_scratch(args.in[0].desc))));
  choose_experts_rows(args, 0, args.out.dim(0), scratch.data());
}

TensorDesc infer_weights(std::span<const TensorDesc> in, const Attrs& attrs) {
  check_count(in, 2, 2);
  check_float(in[0], "logits");
  check_rank(in[0], 2, "logits");
  check_dtype(in[1], DType::i32, "chosen");
  check_rank(in[1], 2, "chosen");
  NIBBLE_CHECK(in[0].shape[0] == in[1].shape[0], "logits ", to_string(in[0]), " and chosen ", to_string(in[1]),
               " differ in rows");
  parse_score(attrs);
  return {in[1].shape, DType::f32, nullptr};
}

void weigh(const KernelArgs& args) { expert_weights_rows(args, 0, args.out.dim(0)); }

TensorDesc infer_group(std::span<const TensorDesc> in, const Attrs& attrs) {
  check_count(in, 1, 1);
  check_dtype(in[0], DType::i32, "chosen");
  check_rank(in[0], 2, "chosen");
  const int64_t experts = attrs.i("experts");
  NIBBLE_CHECK(experts >= 1, "experts ", experts, ": expected at least 1");
  return {{experts + 1 + 2 * in[0].shape.elements()}, DType::i32, nullptr};
}

// A counting sort: begins[e + 1] counts, then begins[e] walks from the begin of e to its end, then they move back.
void group(const KernelArgs& args) {
  const Tensor &chosen = args.in[0], &out = args.out;
  const int64_t experts = args.attrs->i("experts"), count = chosen.dim(1), pairs = chosen.desc.shape.elements();
  const auto at = [&](int64_t i) -> int32_t& { return out.as<int32_t>()[i * out.strides[0]]; };
  const auto expert = [&](int64_t pair) {
    const int32_t e = chosen.as<const int32_t>()[pair / count * chosen.strides[0] + pair % count * chosen.strides[1]];
    return std::clamp<int64_t>(e, 0, experts - 1);
  };
  for (int64_t e = 0; e <= experts; ++e) at(e) = 0;
  for (int64_t p = 0; p < pairs; ++p) ++at(expert(p) + 1);
  for (int64_t e = 0; e < experts; ++e) at(e + 1) += at(e);
  for (int64_t p = 0; p < pairs; ++p) {
    const int32_t row = at(expert(p))++;
    at(experts + 1 + row) = static_cast<int32_t>(p);
    at(experts + 1 + pairs + p) = row;
  }
  for (int64_t e = experts; e > 0; --e) at(e) = at(e - 1);
  at(0) = 0;
}

TensorDesc infer_combine(std::span<const TensorDesc> in, const Attrs&) {
  check_count(in, 3, 3);
  check_dtype(in[0], DType::f32, "y");
  check_rank(in[0], 2, "y");
  check_dtype(in[1], DType::i32, "groups");
  check_rank(in[1], 1, "groups");
  check_dtype(in[2], DType::f32, "weights");
  check_rank(in[2], 2, "weights");
  const int64_t pairs = in[2].shape.elements();
  NIBBLE_CHECK(in[0].shape[0] == pairs, "y ", to_string(in[0]), ": expected a row for each of ", pairs, " weights");
  NIBBLE_CHECK(in[1].shape[0] > 1 + 2 * pairs, "groups ", to_string(in[1]), ": too short for ", pairs, " pairs");
  return {{in[2].shape[0], in[0].shape[1]}, DType::f32, nullptr};
}

void combine(const KernelArgs& args) {
  const Tensor &y = args.in[0], &weights = args.in[2], &out = args.out;
  const int64_t count = weights.dim(1), pairs = weights.desc.shape.elements();
  const ExpertGroups groups = expert_groups(args.in[1], args.in[1].dim(0) - 1 - 2 * pairs);
  for (int64_t i = 0; i < out.dim(0); ++i) {
    for (int64_t column = 0; column < out.dim(1); ++column) {
      float total = 0;
      for (int64_t c = 0; c < count; ++c) {
        const float value = y.as<const float>()[groups.row[i * count + c] * y.strides[0] + column * y.strides[1]];
        total = std::fma(value, weights.as<const float>()[i * weights.strides[0] + c * weights.strides[1]], total);
      }
      out.as<float>()[i * out.strides[0] + column * out.strides[1]] = total;
    }
  }
}

}  // namespace

ExpertGroups expert_groups(const Tensor& groups, int64_t experts) {
  const auto* data = groups.as<const int32_t>();
  const int64_t pairs = (groups.dim(0) - experts - 1) / 2;
  return {experts, pairs, data, data + experts + 1, data + experts + 1 + pairs};
}

int64_t choose_experts_scratch(const TensorDesc& logits) { return 2 * logits.shape[1]; }

// Softmax keeps the order of the logits, so they stand for their scores.
void choose_experts_rows(const KernelArgs& args, int64_t begin, int64_t end, float* scratch) {
  const Attrs& attrs = *args.attrs;
  const Tensor &logits = args.in[0], &out = args.out;
  const int64_t experts = logits.dim(1), count = out.dim(1);
  const Limit limit(attrs, experts, count);
  const bool sigmoid = parse_score(attrs) == Score::sigmoid, bias = attrs.i("bias", 0) != 0;
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t e = 0; e < experts; ++e) {
      const float logit = load_float(logits, i * logits.strides[0] + e * logits.strides[1]);
      scratch[e] = sigmoid ? static_cast<float>(1 / (1 + std::exp(-double{logit}))) : logit;
      if (bias) scratch[e] += load_float(args.in[1], e * args.in[1].strides[0]);
    }
    drop_groups(limit, experts, scratch, scratch + experts);
    int64_t last = -1;
    for (int64_t c = 0; c < count; ++c) {
      last = next_best(scratch, experts, last);
      out.as<int32_t>()[i * out.strides[0] + c * out.strides[1]] = static_cast<int32_t>(last);
    }
  }
}

void expert_weights_rows(const KernelArgs& args, int64_t begin, int64_t end) {
  const Attrs& attrs = *args.attrs;
  const Tensor &logits = args.in[0], &chosen = args.in[1], &out = args.out;
  const bool sigmoid = parse_score(attrs) == Score::sigmoid, normalize = attrs.i("normalize", 0) != 0;
  const double scale = attrs.f("scale", 1);
  const int64_t experts = logits.dim(1), count = out.dim(1);
  for (int64_t i = begin; i < end; ++i) {
    const auto logit = [&](int64_t e) {
      return double{load_float(logits, i * logits.strides[0] + e * logits.strides[1])};
    };
    const auto picked = [&](int64_t c) {
      return logit(std::clamp<int64_t>(chosen.as<const int32_t>()[i * chosen.strides[0] + c * chosen.strides[1]], 0,
                                       experts - 1));
    };
    double most = -INFINITY, sum = 0;
    for (int64_t e = 0; e < experts; ++e) most = std::max(most, logit(e));
    const auto score = [&](double x) { return sigmoid ? 1 / (1 + std::exp(-x)) : std::exp(x - most); };
    if (normalize) {
      for (int64_t c = 0; c < count; ++c) sum += score(picked(c));
    } else if (!sigmoid) {
      for (int64_t e = 0; e < experts; ++e) sum += score(logit(e));
    } else {
      sum = 1;
    }
    for (int64_t c = 0; c < count; ++c) {
      out.as<float>()[i * out.strides[0] + c * out.strides[1]] =
          static_cast<float>(score(picked(c)) / std::max(sum, 1e-20) * scale);
    }
  }
}

extern const OpDef choose_experts_op = {"choose_experts", infer_choose, choose};
extern const OpDef expert_weights_op = {"expert_weights", infer_weights, weigh};
extern const OpDef group_experts_op = {"group_experts", infer_group, group};
extern const OpDef combine_experts_op = {"combine_experts", infer_combine, combine};

}  // namespace nibble::ops
