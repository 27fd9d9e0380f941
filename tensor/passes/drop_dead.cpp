// SPDX-License-Identifier: Apache-2.0
#include "tensor/passes/passes.h"
#include "tensor/passes/rewrite.h"

namespace nibble::passes {

Graph drop_dead(Graph graph) {
  std::vector<bool> needed(graph.values.size());
  for (Value v : graph.outputs) needed[v.id] = true;
  for (size_t i = graph.nodes.size(); i-- > 0;) {
    Node& node = graph.nodes[i];
    if (!needed[node.out.id] && !node.op->writes_inputs) {
      node.op = nullptr;
      continue;
    }
    for (Value v : node.in) needed[v.id] = true;
  }
  finish(graph);
  return graph;
}

}  // namespace nibble::passes
