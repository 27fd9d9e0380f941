// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "tensor/passes/passes.h"
#include "tensor/passes/rewrite.h"

namespace nibble::passes {

namespace {

/// Puts the add or activation `node` of the matmul's result `sum` and `other` into `parts`; false when it doesn't fit.
bool extend(const Graph& graph, const Node& node, Value sum, Value other, MatmulParts& parts) {
  const TensorDesc& desc = graph.desc(sum);
  if (parts.residual.id >= 0 || graph.desc(node.out) != desc) return false;
  const bool plain = parts.activation.empty() && parts.gate.empty();
  if (is_activation(node)) {
    parts.activation = node.op->name;
    return plain;
  }
  const TensorDesc& added = graph.desc(other);
  if (added.shape == desc.shape) {
    parts.residual = other;
    return added.dtype != DType::packed;
  }
  if (!plain || parts.bias.id >= 0 || !graph.is_constant(other)) return false;
  parts.bias = other;
  return added == TensorDesc{{desc.shape[1]}, DType::f32};
}

}  // namespace

Graph fold_epilogue(Graph graph) {
  const Uses uses(graph);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    if (!is(node, "add") && !is_activation(node)) continue;
    // Of two matmuls the later one takes the other's result as its residual.
    int best = -1;
    Value sum;
    Value other;
    for (size_t side = 0; side < node.in.size(); ++side) {
      const int maker = uses.maker[node.in[side].id];
      if (maker <= best || !uses.single(node.in[side]) || !is(graph.nodes[static_cast<size_t>(maker)], "matmul"))
        continue;
      best = maker;
      sum = node.in[side];
      other = node.in.size() == 2 ? node.in[1 - side] : Value{};
    }
    if (best < 0) continue;
    Node& matmul = graph.nodes[static_cast<size_t>(best)];
    MatmulParts parts(matmul);
    if (!extend(graph, node, sum, other, parts)) continue;
    set_matmul(graph, static_cast<int>(i), parts, std::move(matmul.name));
    matmul.op = nullptr;
  }
  finish(graph);
  return graph;
}

}  // namespace nibble::passes
