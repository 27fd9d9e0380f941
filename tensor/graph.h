// SPDX-License-Identifier: Apache-2.0
// The compute graph: what is to be computed, with shapes inferred as nodes are added. Nothing is computed here.
//
//   Graph g;
//   Value x = g.input("x", {{4, 64}, DType::f32});
//   Value w = g.constant("w", weight);                  // a Tensor (128, 64) that outlives every Plan
//   g.output(g.add(op("matmul"), {x, w}));
//   Plan plan = Plan::compile(g);
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "tensor/tensor.h"

namespace nibble {

class Buffer;
struct OpDef;

struct Value {  ///< an edge of one Graph
  int32_t id = -1;
  bool operator==(const Value&) const = default;
};

/// A node's parameters by name. Kernels read them once, when a plan binds them.
class Attrs {
 public:
  using Item = std::variant<int64_t, double, std::string>;
  Attrs() = default;
  Attrs(std::initializer_list<std::pair<std::string, Item>> items) : items_(items) {}

  void set(std::string_view key, Item item);
  bool has(std::string_view key) const;
  /// Without a fallback a missing key throws Error naming it; a wrong type always throws (an integer will do for f).
  int64_t i(std::string_view key) const;
  int64_t i(std::string_view key, int64_t fallback) const;
  double f(std::string_view key) const;
  double f(std::string_view key, double fallback) const;
  const std::string& s(std::string_view key) const;
  std::string s(std::string_view key, std::string_view fallback) const;
  const std::vector<std::pair<std::string, Item>>& items() const { return items_; }
  bool operator==(const Attrs&) const = default;

 private:
  const Item* find(std::string_view key) const;
  std::vector<std::pair<std::string, Item>> items_;
};

struct Node {
  const OpDef* op = nullptr;
  Attrs attrs;
  std::vector<Value> in;
  Value out;
  std::string name;  ///< "blk.3.attn_q"; for errors, explain() and the profile
};

/// Nodes run in the order they were added, so side effects (the KV cache) are ordered too.
struct Graph {
  std::vector<TensorDesc> values;
  std::vector<Node> nodes;
  std::vector<Value> inputs, outputs;
  std::vector<std::string> value_names;  ///< of inputs and constants; else empty
  std::vector<Tensor> constants;         ///< by value id; data is null for everything else
  std::vector<std::shared_ptr<const Buffer>> owned;  ///< memory of constants that passes made; plans keep it alive

  Value input(std::string name, const TensorDesc& desc);
  /// The memory must outlive every plan compiled from this graph.
  Value constant(std::string name, const Tensor& tensor);
  void output(Value value);
  /// Infers the result; throws Error naming the node and the shapes when they don't fit.
  Value add(const OpDef& op, std::span<const Value> in, const Attrs& attrs = {}, std::string name = {});
  Value add(const OpDef& op, std::initializer_list<Value> in, const Attrs& attrs = {}, std::string name = {}) {
    return add(op, std::span<const Value>(in.begin(), in.size()), attrs, std::move(name));
  }

  const TensorDesc& desc(Value v) const { return values[v.id]; }
  bool is_constant(Value v) const { return constants[v.id].data != nullptr; }
};

}  // namespace nibble
