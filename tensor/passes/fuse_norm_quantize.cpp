// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "tensor/passes/passes.h"
#include "tensor/passes/rewrite.h"

namespace nibble::passes {

Graph fuse_norm_quantize(Graph graph) {
  const Uses uses(graph);
  for (Node& quantize : graph.nodes) {
    if (!is(quantize, "quantize")) continue;
    const int maker = uses.maker[quantize.in[0].id];
    if (maker < 0 || !uses.single(quantize.in[0])) continue;
    Node& norm = graph.nodes[static_cast<size_t>(maker)];
    if (!is(norm, "rms_norm") && !is(norm, "layer_norm")) continue;
    if (graph.desc(norm.in[0]).dtype != DType::f32) continue;
    Attrs attrs = norm.attrs;
    attrs.set("norm", std::string(norm.op->name));
    attrs.set("group", quantize.attrs.i("group"));
    attrs.set("offset", quantize.attrs.i("offset"));
    attrs.set("bits", quantize.attrs.i("bits", 8));
    quantize = {&op("norm_quantize"), std::move(attrs), std::move(norm.in), quantize.out, std::move(norm.name)};
    norm.op = nullptr;
  }
  finish(graph);
  return graph;
}

}  // namespace nibble::passes
