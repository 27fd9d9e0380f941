// SPDX-License-Identifier: Apache-2.0
#include "tensor/passes/rewrite.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <memory>

#include "tensor/buffer.h"
#include "tensor/check.h"

namespace nibble::passes {

Uses::Uses(const Graph& graph)
    : maker(graph.values.size(), -1), readers(graph.values.size()), is_output(graph.values.size()) {
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    maker[graph.nodes[i].out.id] = static_cast<int>(i);
    for (Value v : graph.nodes[i].in) readers[v.id].push_back(static_cast<int>(i));
  }
  for (Value v : graph.outputs) is_output[v.id] = true;
}

MatmulParts::MatmulParts(const Node& node)
    : x(node.in[0]), gate(node.attrs.s("gate", "")), activation(node.attrs.s("activation", "")) {
  const auto count = static_cast<size_t>(node.attrs.i("weights", gate.empty() ? 1 : 2));
  weights.assign(node.in.begin() + 1, node.in.begin() + 1 + static_cast<std::ptrdiff_t>(count));
  size_t next = 1 + count;
  if (node.attrs.i("bias", 0)) bias = node.in[next++];
  if (node.attrs.i("residual", 0)) residual = node.in[next++];
}

std::vector<Value> MatmulParts::inputs() const {
  std::vector<Value> in = {x};
  in.insert(in.end(), weights.begin(), weights.end());
  if (bias.id >= 0) in.push_back(bias);
  if (residual.id >= 0) in.push_back(residual);
  return in;
}

Attrs MatmulParts::attrs() const {
  Attrs attrs{{"weights", static_cast<int64_t>(weights.size())}};
  if (!gate.empty()) attrs.set("gate", gate);
  if (!activation.empty()) attrs.set("activation", activation);
  if (bias.id >= 0) attrs.set("bias", int64_t{1});
  if (residual.id >= 0) attrs.set("residual", int64_t{1});
  return attrs;
}

bool is_activation(const Node& node) {
  return is(node, "silu") || is(node, "gelu") || is(node, "gelu_tanh") || is(node, "relu");
}

Value infer_value(Graph& graph, const OpDef& op, std::span<const Value> in, const Attrs& attrs, std::string_view name) {
  const Value v = graph.add(op, in, attrs, std::string(name));
  graph.nodes.pop_back();
  return v;
}

void set_matmul(Graph& graph, int index, const MatmulParts& parts, std::string name) {
  Node& node = graph.nodes[static_cast<size_t>(index)];
  node = {&op("matmul"), parts.attrs(), parts.inputs(), node.out, std::move(name)};
}

void finish(Graph& graph, Insertions insertions) {
  std::ranges::stable_sort(insertions, {}, &Insertions::value_type::first);
  std::vector<Node> nodes;
  nodes.reserve(graph.nodes.size() + insertions.size());
  auto next = insertions.begin();
  for (size_t i = 0; i <= graph.nodes.size(); ++i) {
    for (; next != insertions.end() && next->first == static_cast<int>(i); ++next)
      nodes.push_back(std::move(next->second));
    if (i < graph.nodes.size() && graph.nodes[i].op) nodes.push_back(std::move(graph.nodes[i]));
  }
  graph.nodes = std::move(nodes);
}

std::string joined_name(std::string first, std::string_view second) {
  const size_t dot = second.rfind('.');
  const std::string_view prefix = second.substr(0, dot == std::string_view::npos ? 0 : dot + 1);
  if (first.starts_with(prefix)) second.remove_prefix(prefix.size());
  return first.append("+").append(second);
}

Value concat_constants(Graph& graph, std::span<const Value> parts, std::string name) {
  int64_t n = 0;
  for (Value v : parts) n += graph.desc(v).shape.elements();
  const TensorDesc desc{{n}, DType::f32};
  auto buffer = std::make_shared<Buffer>(bytes(desc));
  std::byte* out = buffer->data();
  for (Value v : parts) {
    NIBBLE_CHECK(graph.desc(v).dtype == DType::f32 && graph.constants[v.id].contiguous(), "constant ",
                 graph.value_names[v.id], ": expected a contiguous f32 vector, found ", to_string(graph.desc(v)));
    std::memcpy(out, graph.constants[v.id].data, bytes(graph.desc(v)));
    out += bytes(graph.desc(v));
  }
  const Value v = graph.constant(std::move(name), Tensor(desc, buffer->data()));
  graph.owned.push_back(std::move(buffer));
  return v;
}

}  // namespace nibble::passes
