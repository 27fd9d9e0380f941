// SPDX-License-Identifier: Apache-2.0
// matmul_experts and matmul_experts_q: out = x wt^T, with the weight of each row's own expert, or a gate of two
// weights. x (m, k) or, grouped, (m chosen, k); weights packed (experts * n rounded up to 16, k); groups of
// group_experts; bias f32 (experts, n) -> f32 (m chosen, n), rows grouped by expert. Sums and epilogue as in matmul and
// matmul_q.
#include <algorithm>
#include <array>
#include <span>

#include "tensor/ops/experts.h"
#include "tensor/ops/matmul.h"
#include "tensor/panel.h"

namespace nibble::ops {

namespace {

int64_t padded(int64_t n) { return (n + panel_columns - 1) / panel_columns * panel_columns; }

TensorDesc infer(std::span<const TensorDesc> in, const Attrs& attrs) {
  const ExpertsCall call = experts_call(in, attrs);
  check_float(in[0], "x");
  return {{call.rows, call.n}, DType::f32, nullptr};
}

TensorDesc infer_q(std::span<const TensorDesc> in, const Attrs& attrs) {
  const ExpertsCall call = experts_call(in, attrs);
  check_dtype(in[0], DType::packed, "x");
  for (int w = 1; w <= call.weights; ++w) {
    const QuantLayout& layout = in[w].format->layout;
    NIBBLE_CHECK(!float_weights(layout), "weight: expected quantised weights, found ", to_string(in[w]));
    const QuantFormat& needs = act_format(panel_act_needs(layout));
    NIBBLE_CHECK(in[0].format == &needs, "x ", to_string(in[0]), ": weight ", to_string(in[w]), " needs ", needs.name);
  }
  return {{call.rows, call.n}, DType::f32, nullptr};
}

template <float (*dot)(const Tensor&, int64_t, const Tensor&, int64_t)>
void reference(const KernelArgs& args) {
  std::array<TensorDesc, 5> descs;  // x, two weights, groups, bias
  for (size_t i = 0; i < args.in.size(); ++i) descs[i] = args.in[i].desc;
  const ExpertsCall call = experts_call(std::span(descs).first(args.in.size()), *args.attrs);
  const ExpertGroups groups = expert_groups(args.in[static_cast<size_t>(call.groups)], call.experts);
  const Tensor& out = args.out;
  for (int64_t e = 0; e < call.experts; ++e) {
    const Tensor first = expert_weight(args.in[1], call, e);
    const Tensor second = call.weights == 2 ? expert_weight(args.in[2], call, e) : first;
    for (int64_t row = groups.begins[e]; row < groups.begins[e + 1]; ++row) {
      const int64_t source = call.source(groups, row);
      for (int64_t column = 0; column < call.n; ++column) {
        float y = dot(args.in[0], source, first, column);
        if (call.weights == 2) y = static_cast<float>(activate(call.gate, y)) * dot(args.in[0], source, second, column);
        if (call.bias) {
          const Tensor& bias = args.in[static_cast<size_t>(call.bias)];
          y += load_float(bias, e * bias.strides[0] + column * bias.strides[1]);
        }
        out.as<float>()[row * out.strides[0] + column * out.strides[1]] = y;
      }
    }
  }
}

}  // namespace

ExpertsCall experts_call(std::span<const TensorDesc> in, const Attrs& attrs) {
  ExpertsCall call;
  call.gate = parse_activation(attrs.s("gate", ""));
  call.weights = call.gate == Activation::none ? 1 : 2;
  call.groups = 1 + call.weights;
  if (attrs.i("bias", 0)) call.bias = call.groups + 1;
  check_count(in, static_cast<size_t>(call.groups + 1 + (call.bias != 0)),
              static_cast<size_t>(call.groups + 1 + (call.bias != 0)));
  NIBBLE_CHECK(call.bias == 0 || call.weights == 1, "gate and bias exclude each other");
  call.experts = attrs.i("experts");
  call.n = attrs.i("n");
  call.grouped = attrs.i("grouped", 0) != 0;
  NIBBLE_CHECK(call.experts >= 1 && call.n >= 1, "experts ", call.experts, " and n ", call.n, ": expected at least 1");
  check_rank(in[0], 2, "x");
  call.k = in[0].shape[1];
  for (int w = 1; w <= call.weights; ++w) {
    check_dtype(in[w], DType::packed, "weight");
    NIBBLE_CHECK(!is_act_format(*in[w].format), "weight: expected a weight format, found ", to_string(in[w]));
    check_shape(in[w], {call.experts * padded(call.n), call.k}, "weight");
  }
  const TensorDesc& groups = in[static_cast<size_t>(call.groups)];
  check_dtype(groups, DType::i32, "groups");
  check_rank(groups, 1, "groups");
  const int64_t both = groups.shape[0] - call.experts - 1;
  NIBBLE_CHECK(both >= 0 && both % 2 == 0, "groups ", to_string(groups), ": not of ", call.experts, " experts");
  call.rows = both / 2;
  call.chosen = attrs.i("chosen");
  NIBBLE_CHECK(call.chosen >= 1 && call.chosen <= call.experts && call.rows % call.chosen == 0, "chosen ", call.chosen,
               ": does not fit ", call.rows, " pairs and ", call.experts, " experts");
  const int64_t rows = call.grouped ? call.rows : call.rows / call.chosen;
  NIBBLE_CHECK(in[0].shape[0] == rows, "x ", to_string(in[0]), ": expected ", rows, " rows");
  if (call.bias) {
    check_dtype(in[static_cast<size_t>(call.bias)], DType::f32, "bias");
    check_shape(in[static_cast<size_t>(call.bias)], {call.experts, call.n}, "bias");
  }
  return call;
}

Tensor expert_weight(const Tensor& stack, const ExpertsCall& call, int64_t expert) {
  const PanelGeometry geometry = panel_geometry(stack.desc.format->layout, call.n, call.k);
  Tensor weight = stack;
  weight.desc.shape = {call.n, call.k};
  weight.data += expert * static_cast<int64_t>(geometry.bytes());
  return weight;
}

extern const OpDef matmul_experts_op = {"matmul_experts", infer, reference<dot_row>};
extern const OpDef matmul_experts_q_op = {"matmul_experts_q", infer_q, reference<dot_row_q>};

}  // namespace nibble::ops
