// SPDX-License-Identifier: Apache-2.0
// What the passes share: who makes and reads a value, the parts of a matmul, insertion and removal of nodes.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensor/graph.h"
#include "tensor/op.h"

namespace nibble::passes {

/// Per value: the node that makes it (-1 for inputs and constants) and the nodes that read it, once per reading.
struct Uses {
  std::vector<int> maker;
  std::vector<std::vector<int>> readers;
  std::vector<bool> is_output;

  explicit Uses(const Graph& graph);
  /// Read exactly once, by a node.
  bool single(Value v) const { return readers[v.id].size() == 1 && !is_output[v.id]; }
};

/// The inputs of a matmul or matmul_q by role; bias and residual are invalid (id -1) when absent. Of a matmul_experts
/// only x and the weights are meant.
struct MatmulParts {
  Value x;
  std::vector<Value> weights;
  Value bias, residual;
  std::string gate, activation;

  explicit MatmulParts(const Node& node);
  std::vector<Value> inputs() const;
  Attrs attrs() const;
};

inline bool is(const Node& node, std::string_view op_name) { return node.op && node.op->name == op_name; }
bool is_activation(const Node& node);

/// A value with the op's inferred description; throws Error naming the node.
Value infer_value(Graph& graph, const OpDef& op, std::span<const Value> in, const Attrs& attrs, std::string_view name);
/// The node at `index` becomes a matmul of these parts with the same result.
void set_matmul(Graph& graph, int index, const MatmulParts& parts, std::string name);

/// Nodes with the position in front of which they go; positions are those before any insertion.
using Insertions = std::vector<std::pair<int, Node>>;
/// Puts them in and drops the nodes whose op is null.
void finish(Graph& graph, Insertions insertions = {});

/// "blk.3.attn_q" and "blk.3.attn_k" make "blk.3.attn_q+attn_k".
std::string joined_name(std::string first, std::string_view second);

/// Vectors (n) f32 one after the other as a new constant that the graph owns.
Value concat_constants(Graph& graph, std::span<const Value> parts, std::string name);

}  // namespace nibble::passes
