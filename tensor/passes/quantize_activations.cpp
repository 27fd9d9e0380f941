// SPDX-License-Identifier: Apache-2.0
#include <map>
#include <tuple>
#include <utility>

#include "tensor/panel.h"
#include "tensor/passes/passes.h"
#include "tensor/passes/rewrite.h"

namespace nibble::passes {

namespace {

constexpr ActNeeds none{.group = 0};

/// What all weights of the matmul need of its activations; `none` when they are not all quantised or don't agree.
ActNeeds needs_of(const Graph& graph, const MatmulParts& parts) {
  ActNeeds needs = none;
  for (Value w : parts.weights) {
    const TensorDesc& desc = graph.desc(w);
    if (desc.dtype != DType::packed || float_weights(desc.format->layout) || is_act_format(*desc.format)) return none;
    const ActNeeds mine = panel_act_needs(desc.format->layout);
    if (needs != none && mine != needs) return none;
    needs = mine;
  }
  return needs;
}

}  // namespace

Graph quantize_activations(Graph graph) {
  std::map<std::tuple<int32_t, ActNeeds>, Value> quantized;
  Insertions insertions;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const bool experts = is(graph.nodes[i], "matmul_experts");
    if (!experts && !is(graph.nodes[i], "matmul")) continue;
    const MatmulParts parts(graph.nodes[i]);
    const ActNeeds needs = needs_of(graph, parts);
    if (needs == none || graph.desc(parts.x).dtype != DType::f32) continue;
    Value& q = quantized[{parts.x.id, needs}];
    if (q.id < 0) {
      const Attrs attrs{{"group", needs.group}, {"offset", needs.offset}, {"bits", needs.bits}};
      const std::string name = graph.nodes[i].name + ".quantize";
      q = infer_value(graph, op("quantize"), std::vector{parts.x}, attrs, name);
      insertions.emplace_back(static_cast<int>(i), Node{&op("quantize"), attrs, {parts.x}, q, name});
    }
    graph.nodes[i].op = &op(experts ? "matmul_experts_q" : "matmul_q");
    graph.nodes[i].in[0] = q;
  }
  finish(graph, std::move(insertions));
  return graph;
}

}  // namespace nibble::passes
