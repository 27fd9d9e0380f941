// SPDX-License-Identifier: Apache-2.0
#include "tests/support/op_cases.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <stdexcept>
#include <utility>

#include "tensor/check.h"
#include "tensor/panel.h"
#include "tests/support/compare.h"
#include "tests/support/op_maker.h"

namespace nibble::test {

namespace {

void embedding(Maker& mk) {
  const int64_t m = mk.size, vocab = mk.size + 3, width = 2 * mk.size + 1;
  Ints ids(m);
  for (auto& id : ids) id = static_cast<int32_t>(mk.random.integer(-1, vocab));
  mk.ints({m}, ids);
  Doubles table;
  if (mk.variant == 3) {
    RandomPanels panels =
        random_panels({.group = 32, .bits = 4, .scale = DType::f16}, vocab, 32 * mk.size, mk.random.bits());
    table = panels.values;
    mk.result.in.push_back(std::move(panels.tensor));
    mk.result.formats.push_back(std::move(panels.format));
  } else {
    const Floats t = mk.floats({vocab, width});
    table.assign(t.begin(), t.end());
  }
  const int64_t n = static_cast<int64_t>(table.size()) / vocab;
  Doubles want(m * n, 0.0);
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++)
      if (ids[i] >= 0 && ids[i] < vocab) want[i * n + j] = table[ids[i] * n + j];
  mk.want(std::move(want), mk.variant == 3 ? 1 : 0);
}

/// bias, activation, gate and residual over the plain products `sums` (m, n) with magnitude bounds `errors`.
void epilogue(Maker& mk, const Doubles& sums, const Doubles& errors, int64_t m, int64_t n, bool with_gate,
              const std::string& activation_name, bool with_bias, bool with_residual) {
  const Floats bias = with_bias ? mk.add({n}, DType::f32, mk.random.floats(n)) : Floats(n, 0.0f);
  const int64_t columns = with_gate ? n / 2 : n;
  const Floats residual = with_residual ? mk.floats({m, columns}) : Floats(m * columns, 0.0f);
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < columns; j++) {
      // Every step rounds once; activations here have slopes below 1.2.
      const double a = sums[i * n + j] + bias[j], slack_a = errors[i * n + j] + 2 * f32_epsilon * std::fabs(a);
      double y = activation(activation_name, a), slack = 1.2 * slack_a + 2 * f32_epsilon * std::fabs(y);
      if (with_gate) {
        const int64_t other = i * n + columns + j;
        const double b = sums[other] + bias[columns + j], slack_b = errors[other] + 2 * f32_epsilon * std::fabs(b);
        slack = slack * std::fabs(b) + slack_b * std::fabs(y) + slack * slack_b + 2 * f32_epsilon * std::fabs(y * b);
        y *= b;
      }
      y += residual[i * columns + j];
      mk.result.want.push_back(y);
      mk.result.bound.push_back(slack + 2 * f32_epsilon * std::fabs(y) + 1e-38);
    }
  }
}

struct Variant {
  int weights;
  bool gate, bias, residual;
  const char* activation;
};
constexpr std::array<Variant, 4> matmul_variants = {{{1, false, false, false, ""},
                                                     {1, false, true, false, "silu"},
                                                     {3, false, true, true, ""},
                                                     {2, true, true, true, "gelu_tanh"}}};

void set_attrs(Maker& mk, const Variant& v) {
  mk.result.attrs.set("weights", int64_t{v.weights});
  if (v.bias) mk.result.attrs.set("bias", int64_t{1});
  if (v.residual) mk.result.attrs.set("residual", int64_t{1});
  if (*v.activation) mk.result.attrs.set(v.gate ? "gate" : "activation", std::string(v.activation));
}

/// x (m, k), one weight after the other (n_w, k) with magnitudes -> products side by side and their rounding slack.
void matmul_common(Maker& mk, const Doubles& x, int64_t m, int64_t k, const Variant& v,
                   const std::vector<std::pair<Doubles, Doubles>>& weights, double roundings) {
  int64_t n = 0;
  for (const auto& w : weights) n += static_cast<int64_t>(w.first.size()) / k;
  Doubles sums(m * n), errors(m * n);
  int64_t base = 0;
  for (const auto& [w, magnitude] : weights) {
    const int64_t columns = static_cast<int64_t>(w.size()) / k;
    for (int64_t i = 0; i < m; i++) {
      for (int64_t c = 0; c < columns; c++) {
        double sum = 0, size = 0;
        for (int64_t j = 0; j < k; j++) {
          sum += x[i * k + j] * w[c * k + j];
          size += std::fabs(x[i * k + j]) * magnitude[c * k + j];
        }
        sums[i * n + base + c] = sum;
        errors[i * n + base + c] = roundings * f32_epsilon * size;
      }
    }
    base += columns;
  }
  set_attrs(mk, v);
  epilogue(mk, sums, errors, m, n, v.gate, v.activation, v.bias, v.residual);
}

Doubles absolute(Doubles x) {
  for (double& v : x) v = std::fabs(v);
  return x;
}

void matmul_case(Maker& mk) {
  const Variant& v = matmul_variants[mk.variant];
  const int64_t m = mk.size - 4, k = 3 * mk.size;
  const Floats x = mk.floats({m, k});
  std::vector<std::pair<Doubles, Doubles>> weights;
  for (int w = 0; w < v.weights; w++) {
    const int64_t n = v.gate ? mk.size : mk.size + w;
    const Floats values = mk.floats({n, k});
    const Doubles exact(values.begin(), values.end());
    weights.emplace_back(exact, absolute(exact));
  }
  matmul_common(mk, Doubles(x.begin(), x.end()), m, k, v, weights, static_cast<double>(k + 1));
}

void matmul_q_case(Maker& mk) {
  const Variant& v = matmul_variants[mk.variant];
  const int64_t m = mk.size - 4, k = mk.size % 2 ? 32 * mk.size : 256;
  const ZeroPoint zero_point = mk.size == 7 ? ZeroPoint::minimum : ZeroPoint::symmetric;
  const QuantLayout layout = {.group = 32, .bits = 4, .zero_point = zero_point, .scale = DType::f16};
  TestTensor x({m, k}, DType::f32, mk.random.floats(m * k, -2, 2));
  const ActNeeds act = panel_act_needs(layout);
  const Attrs needs = {{"group", int64_t{act.group}}, {"offset", int64_t{act.offset}}, {"bits", int64_t{act.bits}}};
  mk.result.in.push_back(run_reference("quantize", {x}, needs));
  const Doubles quantized = values(mk.result.in[0]);
  std::vector<std::pair<Doubles, Doubles>> weights;
  for (int w = 0; w < v.weights; w++) {
    RandomPanels panels = random_panels(layout, v.gate ? mk.size : mk.size + w, k, mk.random.bits());
    weights.emplace_back(panels.values, panels.magnitudes);
    mk.result.in.push_back(std::move(panels.tensor));
    mk.result.formats.push_back(std::move(panels.format));
  }
  // Two fma per weight group, one per activation group, one rounding of the scale.
  matmul_common(mk, quantized, m, k, v, weights, static_cast<double>(3 * (k / 32) + 3));
}

/// Half a step of every group of max(32, attribute `group`), plus the roundings of scale and quotient, plus `slack` of
/// the input itself.
void quantized_want(Maker& mk, const Doubles& x, int64_t k, double slack) {
  mk.result.want = x;
  const int64_t group = std::max<int64_t>(mk.result.attrs.i("group"), 32);
  for (size_t i = 0; i < x.size(); i++) {
    const int64_t row = static_cast<int64_t>(i) / k, first = static_cast<int64_t>(i) % k / group * group;
    double max = 0;
    for (int64_t j = first; j < std::min(first + group, k); j++) max = std::max(max, std::fabs(x[row * k + j]));
    const double steps = mk.result.attrs.i("bits") == 16 ? 2 * 32767 : 2 * 127;
    mk.result.bound.push_back(max / steps + 4 * f32_epsilon * max + slack);
  }
}

void act_attrs(Maker& mk) {
  constexpr int groups[] = {16, 32, 64, 128}, offsets[] = {0, 8, 128, 16};
  mk.result.attrs.set("group", int64_t{groups[mk.variant]});
  mk.result.attrs.set("offset", int64_t{offsets[mk.variant]});
  mk.result.attrs.set("bits", int64_t{mk.variant % 2 ? 8 : 16});
}

void quantize_case(Maker& mk) {
  const int64_t m = mk.size, k = 31 * mk.size;
  const Floats x = mk.f32({m, k});
  act_attrs(mk);
  quantized_want(mk, Doubles(x.begin(), x.end()), k, 0);
}

/// variant 0: x alone, 1: weight, 2 and 3: weight and (layer_norm) bias.
Doubles norm_want(Maker& mk, bool layer, const Shape& shape, DType x_type) {
  const double eps = mk.variant == 3 ? 1e-2 : 1e-5;
  mk.result.attrs.set("eps", eps);
  const Floats x = mk.add(shape, x_type, mk.random.floats(shape.elements(), -2, 2));
  Floats weight, bias;
  if (mk.variant >= 1) weight = mk.floats({shape[-1]});
  if (mk.variant >= 2 && layer) bias = mk.floats({shape[-1]});
  const double eps32 = static_cast<float>(eps);
  return layer ? layer_norm(x, shape[-1], weight, bias, eps32) : rms_norm(x, shape[-1], weight, eps32);
}
/// Lane sums of n / 16 + 4 additions, squared and rooted, twice for layer_norm's mean, and five operations per element.
double norm_roundings(int64_t n) { return static_cast<double>(2 * (n / 16 + 5) + 8); }

void norm_case(Maker& mk, bool layer) {
  const Shape shape = {3, mk.size, 5 * mk.size};
  Doubles want = norm_want(mk, layer, shape, mk.dtype);
  mk.want(std::move(want), norm_roundings(shape[-1]));
}

void norm_quantize_case(Maker& mk) {
  const bool layer = mk.variant % 2;
  const Shape shape = {mk.size, 31 * mk.size};
  const Doubles want = norm_want(mk, layer, shape, DType::f32);
  act_attrs(mk);
  mk.result.attrs.set("norm", std::string(layer ? "layer_norm" : "rms_norm"));
  quantized_want(mk, want, shape[1], norm_roundings(shape[1]) * f32_epsilon * max_abs(want));
}

void binary_case(Maker& mk, bool product) {
  const Shape shape = {2, mk.size, mk.size + 2};
  const Shape other = mk.variant == 0 ? shape : mk.variant == 1 ? Shape{mk.size, mk.size + 2} : Shape{mk.size + 2};
  const Floats a = mk.floats(shape), b = mk.floats(other);
  Doubles want;
  for (size_t i = 0; i < a.size(); i++) {
    const double x = a[i], y = b[i % b.size()];
    want.push_back(product ? x * y : x + y);
  }
  mk.want(std::move(want), 1);
}

void unary_case(Maker& mk, const std::string& name) {
  const Shape shape = {2, mk.size, mk.size};
  const float range = mk.variant == 3 ? 60.0f : 4.0f;
  const Floats x = mk.add(shape, mk.dtype, mk.random.floats(shape.elements(), -range, range));
  Doubles want;
  for (float v : x) want.push_back(activation(name, v));
  mk.want(std::move(want), 2);
}

void clamp_case(Maker& mk) {
  constexpr double limits[] = {1, 0.25, 3, 1.5};
  mk.result.attrs.set("limit", limits[mk.variant]);
  Doubles want;
  for (float v : mk.floats({2, mk.size, mk.size}))
    want.push_back(std::clamp(double{v}, -limits[mk.variant], limits[mk.variant]));
  mk.want(std::move(want), 0);
}

void softmax_case(Maker& mk) {
  constexpr double scales[] = {1, 0.125, 30, -2};
  const Floats x = mk.floats({mk.size, 3, mk.size});
  mk.result.attrs.set("scale", scales[mk.variant]);
  mk.want(softmax(x, mk.size, scales[mk.variant]), 2);
}

void rope_table_case(Maker& mk) {
  Ints positions;
  for (int64_t i = 0; i < mk.size; i++) positions.push_back(static_cast<int32_t>(mk.random.integer(0, 100000)));
  mk.ints({mk.size}, positions);
  const Floats freq = mk.add({mk.size}, DType::f32, mk.random.floats(mk.size, 0, 1));
  const double factor = mk.variant == 0 ? 1.0 : 1.25;
  mk.result.attrs.set("attention_factor", factor);
  Doubles want;
  for (int32_t p : positions) {
    for (float f : freq) want.push_back(std::cos(double(float(p) * f)) * factor);
    for (float f : freq) want.push_back(std::sin(double(float(p) * f)) * factor);
  }
  mk.want(std::move(want), 2);
}

void rope_case(Maker& mk) {
  const bool interleaved = mk.variant % 2;
  const int64_t heads = 3, head_dim = 2 * mk.size, pairs = mk.variant < 2 ? mk.size : mk.size / 2;
  const int64_t begin = mk.variant == 3 ? head_dim - 2 * pairs : 0;
  const Floats x = mk.floats({mk.size, heads * head_dim});
  Ints positions;
  for (int64_t i = 0; i < mk.size; i++) positions.push_back(static_cast<int32_t>(mk.random.integer(0, 5000)));
  const Floats freq = mk.random.floats(pairs, 0, 1);
  const TestTensor table =
      run_reference("rope_table", {TestTensor({mk.size}, positions), TestTensor({pairs}, DType::f32, freq)});
  mk.add({mk.size, 2 * pairs}, DType::f32, table.floats());
  mk.result.attrs = {
      {"head_dim", head_dim}, {"pairing", std::string(interleaved ? "interleaved" : "halves")}, {"begin", begin}};
  mk.want(rope(x, heads, head_dim, positions, freq, interleaved, 1, begin), 4);
}

void reshape_case(Maker& mk) {
  mk.strided = false;
  const Floats x = mk.floats({mk.size, 6, 4});
  mk.result.attrs = {{"rank", int64_t{2}}, {"d0", int64_t{8}}, {"d1", int64_t{-1}}};
  mk.want(Doubles(x.begin(), x.end()), 0);
}

void slice_case(Maker& mk) {
  const int64_t s = mk.size, begin = mk.variant, count = s - 4;
  const bool last = mk.variant % 2;
  const Floats x = mk.floats({2, s, s});
  mk.result.attrs = {{"dim", int64_t{last ? -1 : 1}}, {"begin", begin}, {"size", count}};
  Doubles want;
  for (int64_t a = 0; a < 2; a++)
    for (int64_t i = 0; i < s; i++)
      for (int64_t j = 0; j < s; j++)
        if ((last ? j : i) >= begin && (last ? j : i) < begin + count) want.push_back(x[(a * s + i) * s + j]);
  mk.want(std::move(want), 0);
}

void permute_case(Maker& mk) {
  const int64_t dims[3] = {2, mk.size, mk.size + 1};
  constexpr int64_t orders[4][3] = {{0, 2, 1}, {2, 1, 0}, {1, 0, 2}, {1, 2, 0}};
  const int64_t* p = orders[mk.variant];
  const Floats x = mk.floats({dims[0], dims[1], dims[2]});
  mk.result.attrs = {{"p0", p[0]}, {"p1", p[1]}, {"p2", p[2]}};
  Doubles want;
  int64_t index[3], at[3];
  for (index[0] = 0; index[0] < dims[p[0]]; index[0]++)
    for (index[1] = 0; index[1] < dims[p[1]]; index[1]++)
      for (index[2] = 0; index[2] < dims[p[2]]; index[2]++) {
        for (int i = 0; i < 3; i++) at[p[i]] = index[i];
        want.push_back(x[(at[0] * dims[1] + at[1]) * dims[2] + at[2]]);
      }
  mk.want(std::move(want), 0);
}

void copy_case(Maker& mk) {
  constexpr const char* types[] = {"", "f32", "f16", "bf16"};
  const Floats x = mk.floats({mk.size, 2, mk.size});
  if (mk.variant) mk.result.attrs.set("dtype", std::string(types[mk.variant]));
  Doubles want;
  for (float v : x) {
    want.push_back(mk.variant == 2 ? f16_to_f32(f32_to_f16(v)) : mk.variant == 3 ? bf16_to_f32(f32_to_bf16(v)) : v);
  }
  mk.want(std::move(want), 0);
}

void concat_case(Maker& mk) {
  const int64_t s = mk.size;
  const bool last = mk.variant % 2;
  Doubles want;
  const Shape shapes[2] = {{2, s, 3}, last ? Shape{2, s, 4} : Shape{2, s + 2, 3}};
  const Floats parts[2] = {mk.floats(shapes[0]), mk.floats(shapes[1])};
  mk.result.attrs.set("dim", int64_t{last ? -1 : 1});
  const int64_t blocks = last ? 2 * s : 2;
  for (int64_t block = 0; block < blocks; block++) {
    for (const Floats& part : parts) {
      const int64_t length = static_cast<int64_t>(part.size()) / blocks;
      want.insert(want.end(), part.begin() + block * length, part.begin() + (block + 1) * length);
    }
  }
  mk.want(std::move(want), 0);
}

void rows_case(Maker& mk) {
  const int64_t m = mk.size, n = mk.size + 1, r = mk.size / 2;
  const Floats x = mk.floats({m, n});
  Ints index;
  Doubles want;
  for (int64_t i = 0; i < r; i++) {
    index.push_back(static_cast<int32_t>(mk.random.integer(-1, m)));
    for (int64_t j = 0; j < n; j++) want.push_back(index[i] < 0 || index[i] >= m ? 0.0 : x[index[i] * n + j]);
  }
  mk.ints({r}, index);
  mk.want(std::move(want), 0);
}

void columns_case(Maker& mk) {
  const int64_t m = mk.size, n = mk.size + 1, r = mk.size / 2;
  const Floats x = mk.floats({m, n});
  Ints index;
  for (int64_t j = 0; j < r; j++) index.push_back(static_cast<int32_t>(mk.random.integer(-1, n)));
  Doubles want;
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < r; j++) want.push_back(index[j] < 0 || index[j] >= n ? 0.0 : x[i * n + index[j]]);
  mk.ints({r}, index);
  mk.want(std::move(want), 0);
}

void argmax_case(Maker& mk) {
  const Shape shape = mk.variant == 3 ? Shape{mk.size} : Shape{2, mk.size, mk.size};
  Floats x = mk.random.floats(shape.elements(), -2, 2);
  if (mk.variant == 1) for (float& v : x) v = std::round(v);  // ties
  x = mk.add(shape, mk.dtype, x);
  Doubles want;
  for (auto row = x.begin(); row != x.end(); row += mk.size) {
    want.push_back(static_cast<double>(std::max_element(row, row + mk.size) - row));
  }
  mk.want(std::move(want), 0);
}

struct Entry {
  std::string_view op;
  std::function<void(Maker&)> make;
};

const std::vector<Entry>& entries() {
  static const std::vector<Entry> list = {
      {"embedding", embedding},
      {"matmul", matmul_case},
      {"matmul_q", matmul_q_case},
      {"quantize", quantize_case},
      {"choose_experts", choose_experts_case},
      {"expert_weights", expert_weights_case},
      {"group_experts", group_experts_case},
      {"matmul_experts", [](Maker& mk) { matmul_experts_case(mk, false); }},
      {"matmul_experts_q", [](Maker& mk) { matmul_experts_case(mk, true); }},
      {"combine_experts", combine_experts_case},
      {"clamped_swiglu", clamped_swiglu_case},
      {"rms_norm", [](Maker& mk) { norm_case(mk, false); }},
      {"layer_norm", [](Maker& mk) { norm_case(mk, true); }},
      {"norm_quantize", norm_quantize_case},
      {"add", [](Maker& mk) { binary_case(mk, false); }},
      {"mul", [](Maker& mk) { binary_case(mk, true); }},
      {"silu", [](Maker& mk) { unary_case(mk, "silu"); }},
      {"gelu", [](Maker& mk) { unary_case(mk, "gelu"); }},
      {"gelu_tanh", [](Maker& mk) { unary_case(mk, "gelu_tanh"); }},
      {"relu", [](Maker& mk) { unary_case(mk, "relu"); }},
      {"tanh", [](Maker& mk) { unary_case(mk, "tanh"); }},
      {"clamp", clamp_case},
      {"softmax", softmax_case},
      {"rope_table", rope_table_case},
      {"rope", rope_case},
      {"attention", attention_case},
      {"reshape", reshape_case},
      {"slice", slice_case},
      {"permute", permute_case},
      {"copy", copy_case},
      {"concat", concat_case},
      {"rows", rows_case},
      {"columns", columns_case},
      {"argmax", argmax_case},
  };
  return list;
}

const Entry* find(std::string_view op) {
  for (const Entry& e : entries()) {
    if (e.op == op) return &e;
  }
  return nullptr;
}

}  // namespace

std::vector<Tensor> OpCase::inputs() const {
  return {in.begin(), in.end()};
}

bool has_op_cases(std::string_view op) { return find(op) != nullptr; }

OpCase op_case(std::string_view op, DType dtype, int64_t size, int variant, bool strided) {
  const Entry* entry = find(op);
  if (!entry) throw std::runtime_error("no cases for op " + std::string(op));
  const uint64_t seed = static_cast<uint64_t>(size * 1000 + variant * 10 + static_cast<int>(dtype));
  Maker mk{dtype, size, variant, strided, Random(seed), {}};
  mk.result.seed = seed;
  mk.result.name = message(op, " ", name(dtype), " size ", size, " variant ", variant, strided ? " strided" : "");
  entry->make(mk);
  return std::move(mk.result);
}

}  // namespace nibble::test
