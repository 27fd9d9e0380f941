// SPDX-License-Identifier: Apache-2.0
#include <map>
#include <tuple>
#include <utility>

#include "tensor/panel.h"
#include "tensor/passes/passes.h"
#include "tensor/passes/rewrite.h"

namespace nibble::passes {

namespace {

struct Needs {
  int group = 0, offset = 0;
  auto operator<=>(const Needs&) const = default;
};

/// What all weights of the matmul need of its activations; group 0 when they are not all quantised or don't agree.
Needs needs_of(const Graph& graph, const MatmulParts& parts) {
  Needs needs;
  for (Value w : parts.weights) {
    const TensorDesc& desc = graph.desc(w);
    if (desc.dtype != DType::packed || desc.format->layout.bits == 0 || is_act_format(*desc.format)) return {};
    const Needs mine = {panel_act_group(desc.format->layout), panel_act_offset(desc.format->layout)};
    if (needs.group != 0 && mine != needs) return {};
    needs = mine;
  }
  return needs;
}

}  // namespace

Graph quantize_activations(Graph graph) {
  std::map<std::tuple<int32_t, Needs>, Value> quantized;
  Insertions insertions;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (!is(graph.nodes[i], "matmul")) continue;
    const MatmulParts parts(graph.nodes[i]);
    const Needs needs = needs_of(graph, parts);
    if (needs.group == 0 || graph.desc(parts.x).dtype != DType::f32) continue;
    Value& q = quantized[{parts.x.id, needs}];
    if (q.id < 0) {
      const Attrs attrs{{"group", needs.group}, {"offset", needs.offset}};
      const std::string name = graph.nodes[i].name + ".quantize";
      q = infer_value(graph, op("quantize"), std::vector{parts.x}, attrs, name);
      insertions.emplace_back(static_cast<int>(i), Node{&op("quantize"), attrs, {parts.x}, q, name});
    }
    graph.nodes[i].op = &op("matmul_q");
    graph.nodes[i].in[0] = q;
  }
  finish(graph, std::move(insertions));
  return graph;
}

}  // namespace nibble::passes
