// SPDX-License-Identifier: Apache-2.0
#include <map>
#include <tuple>
#include <utility>

#include "tensor/passes/passes.h"
#include "tensor/passes/rewrite.h"

namespace nibble::passes {

namespace {

/// x, kind of weight, has a bias: matmuls with the same key may be joined.
using Key = std::tuple<int32_t, DType, const QuantFormat*, bool>;

/// True when a reshape, perhaps behind other views, reads the value: it needs contiguous memory, a slice isn't.
bool is_reshaped(const Graph& graph, const Uses& uses, Value v) {
  for (int reader : uses.readers[v.id]) {
    const Node& node = graph.nodes[static_cast<size_t>(reader)];
    if (node.op->view && (is(node, "reshape") || is_reshaped(graph, uses, node.out))) return true;
  }
  return false;
}

bool joinable(const Graph& graph, const Uses& uses, const Node& node) {
  if (!is(node, "matmul") || uses.is_output[node.out.id]) return false;
  const MatmulParts parts(node);
  if (!parts.gate.empty() || !parts.activation.empty() || parts.residual.id >= 0) return false;
  if (parts.bias.id >= 0 && !graph.is_constant(parts.bias)) return false;
  for (Value w : parts.weights) {
    const TensorDesc& first = graph.desc(parts.weights[0]);
    if (!graph.is_constant(w) || graph.desc(w).dtype != first.dtype || graph.desc(w).format != first.format)
      return false;
  }
  return !is_reshaped(graph, uses, node.out);
}

void join(Graph& graph, const std::vector<int>& members, Insertions& insertions) {
  MatmulParts all(graph.nodes[static_cast<size_t>(members[0])]);
  std::string name = graph.nodes[static_cast<size_t>(members[0])].name;
  std::vector<Value> biases = {all.bias};
  for (size_t i = 1; i < members.size(); ++i) {
    const Node& node = graph.nodes[static_cast<size_t>(members[i])];
    const MatmulParts parts(node);
    all.weights.insert(all.weights.end(), parts.weights.begin(), parts.weights.end());
    biases.push_back(parts.bias);
    name = joined_name(std::move(name), node.name);
  }
  if (all.bias.id >= 0) all.bias = concat_constants(graph, biases, name + ".bias");
  const Node joined = {&op("matmul"), all.attrs(), all.inputs(),
                       infer_value(graph, op("matmul"), all.inputs(), all.attrs(), name), name};
  int64_t begin = 0;
  for (int member : members) {
    Node& node = graph.nodes[static_cast<size_t>(member)];
    const int64_t size = graph.desc(node.out).shape[1];
    node = {&op("slice"), {{"dim", 1}, {"begin", begin}, {"size", size}}, {joined.out}, node.out, std::move(node.name)};
    begin += size;
  }
  insertions.emplace_back(members[0], joined);
}

}  // namespace

Graph join_matmuls(Graph graph) {
  const Uses uses(graph);
  std::map<Key, std::vector<int>> groups;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (!joinable(graph, uses, graph.nodes[i])) continue;
    const MatmulParts parts(graph.nodes[i]);
    const TensorDesc& weight = graph.desc(parts.weights[0]);
    groups[{parts.x.id, weight.dtype, weight.format, parts.bias.id >= 0}].push_back(static_cast<int>(i));
  }
  Insertions insertions;
  for (const auto& [key, members] : groups) {
    if (members.size() > 1) join(graph, members, insertions);
  }
  finish(graph, std::move(insertions));
  return graph;
}

}  // namespace nibble::passes
