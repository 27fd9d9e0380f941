// SPDX-License-Identifier: Apache-2.0
#include <optional>
#include <utility>

#include "tensor/check.h"
#include "tensor/panel.h"
#include "tensor/passes/passes.h"
#include "tensor/passes/rewrite.h"

namespace nibble::passes {

namespace {

struct Match {
  MatmulParts parts;
  std::string name;
  std::vector<int> replaced;  // nodes that the new matmul makes superfluous
};

Node* made_by(Graph& graph, const Uses& uses, Value v, std::string_view op_name) {
  const int maker = uses.maker[v.id];
  if (maker < 0 || !is(graph.nodes[static_cast<size_t>(maker)], op_name)) return nullptr;
  return &graph.nodes[static_cast<size_t>(maker)];
}

/// Rows [begin, begin + n) of a constant as a constant of its own; invalid when its memory can't be cut there.
Value constant_rows(Graph& graph, Value v, int64_t begin, int64_t n) {
  const Tensor& whole = graph.constants[v.id];
  Tensor part = whole;
  part.desc.shape[0] = n;
  if (whole.desc.dtype == DType::packed) {
    if (begin % panel_columns != 0 || n % panel_columns != 0) return {};
    const PanelGeometry geometry = panel_geometry(whole.desc.format->layout, whole.dim(0), whole.dim(1));
    part.data += static_cast<size_t>(begin / panel_columns) * geometry.panel_bytes;
  } else {
    part.data += begin * whole.strides[0] * static_cast<int64_t>(element_bytes(whole.desc.dtype));
  }
  return graph.constant(message(graph.value_names[v.id], "[", begin, ":", begin + n, "]"), part);
}

/// silu(x w1 + b1) * (x w2 + b2), where the activation is in the first matmul already.
std::optional<Match> match_pair(Graph& graph, const Uses& uses, Value gate, Value up) {
  const Node* a = made_by(graph, uses, gate, "matmul");
  const Node* b = made_by(graph, uses, up, "matmul");
  if (!a || !b || !uses.single(gate) || !uses.single(up)) return {};
  MatmulParts first(*a);
  const MatmulParts second(*b);
  const bool plain =
      second.activation.empty() && second.gate.empty() && first.gate.empty() && !first.activation.empty();
  if (!plain || first.residual.id >= 0 || second.residual.id >= 0 || first.x != second.x) return {};
  if (first.weights.size() != 1 || second.weights.size() != 1) return {};
  if (graph.desc(first.weights[0]) != graph.desc(second.weights[0])) return {};
  if ((first.bias.id >= 0) != (second.bias.id >= 0)) return {};
  const std::string name = joined_name(a->name, b->name);
  if (first.bias.id >= 0) {
    if (!graph.is_constant(first.bias) || !graph.is_constant(second.bias)) return {};
    first.bias = concat_constants(graph, std::vector{first.bias, second.bias}, name + ".bias");
  }
  first.weights.push_back(second.weights[0]);
  first.gate = std::exchange(first.activation, {});
  return Match{first, name, {uses.maker[gate.id], uses.maker[up.id]}};
}

/// The two halves along n of one matmul's result: their slices, which read them once.
struct Halves {
  const Node* matmul = nullptr;
  int64_t begin = 0, other = 0;  // of the gate half and the other one
  std::vector<int> nodes;        // the slices and the matmul
};

std::optional<Halves> halves_of(Graph& graph, const Uses& uses, Value gate, Value up) {
  const Node* a = made_by(graph, uses, gate, "slice");
  const Node* b = made_by(graph, uses, up, "slice");
  if (!a || !b || a->in[0] != b->in[0] || graph.desc(gate) != graph.desc(up)) return {};
  const Value whole = a->in[0];
  const Node* matmul = made_by(graph, uses, whole, "matmul");
  if (!matmul || uses.is_output[whole.id] || uses.readers[whole.id].size() != 2) return {};
  const int64_t n = graph.desc(gate).shape[1];
  const Halves h = {matmul, a->attrs.i("begin"), b->attrs.i("begin"),
                    {uses.maker[gate.id], uses.maker[up.id], uses.maker[whole.id]}};
  const bool cover = graph.desc(whole).shape == Shape{graph.desc(gate).shape[0], 2 * n} && h.begin + h.other == n &&
                     (h.begin == 0 || h.other == 0);
  if (!cover) return {};
  return h;
}

/// act(one half of x w + b) * the other half.
std::optional<Match> match_halves(Graph& graph, const Uses& uses, Value gate, Value up) {
  const int act = uses.maker[gate.id];
  if (act < 0 || !uses.single(gate) || !uses.single(up)) return {};
  const Node& activation = graph.nodes[static_cast<size_t>(act)];
  if (!is_activation(activation) || !uses.single(activation.in[0])) return {};
  const std::optional<Halves> halves = halves_of(graph, uses, activation.in[0], up);
  if (!halves) return {};
  MatmulParts parts(*halves->matmul);
  if (!parts.gate.empty() || !parts.activation.empty() || parts.residual.id >= 0 || parts.weights.size() > 2) return {};
  const int64_t n = graph.desc(gate).shape[1];
  if (parts.weights.size() == 2) {
    if (graph.desc(parts.weights[0]) != graph.desc(parts.weights[1])) return {};
    if (halves->begin > 0) std::swap(parts.weights[0], parts.weights[1]);
  } else {
    const Value whole = parts.weights[0];
    if (!graph.is_constant(whole)) return {};
    parts.weights = {constant_rows(graph, whole, halves->begin, n), constant_rows(graph, whole, halves->other, n)};
    if (parts.weights[0].id < 0 || parts.weights[1].id < 0) return {};
  }
  if (parts.bias.id >= 0 && halves->begin > 0) {
    if (!graph.is_constant(parts.bias)) return {};
    const std::vector swapped = {constant_rows(graph, parts.bias, halves->begin, n),
                                 constant_rows(graph, parts.bias, halves->other, n)};
    parts.bias = concat_constants(graph, swapped, halves->matmul->name + ".bias");
  }
  parts.gate = activation.op->name;
  Match match{parts, halves->matmul->name, halves->nodes};
  match.replaced.push_back(act);
  return match;
}

}  // namespace

Graph fold_gate(Graph graph) {
  const Uses uses(graph);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (!is(graph.nodes[i], "mul")) continue;
    const Value a = graph.nodes[i].in[0];
    const Value b = graph.nodes[i].in[1];
    if (graph.desc(a) != graph.desc(b)) continue;
    std::optional<Match> match = match_pair(graph, uses, a, b);
    if (!match) match = match_pair(graph, uses, b, a);
    if (!match) match = match_halves(graph, uses, a, b);
    if (!match) match = match_halves(graph, uses, b, a);
    if (!match) continue;
    set_matmul(graph, static_cast<int>(i), match->parts, std::move(match->name));
    for (int node : match->replaced) graph.nodes[static_cast<size_t>(node)].op = nullptr;
  }
  finish(graph);
  return graph;
}

}  // namespace nibble::passes
