// SPDX-License-Identifier: Apache-2.0
#include "models/builder.h"

#include <cmath>
#include <vector>

#include "models/kv_cache.h"
#include "tensor/check.h"
#include "tensor/op.h"

namespace nibble::models {

struct Builder::Impl {
  const Arch& arch;
  const Config& config;
  const Weights& weights;
  Graph graph;
  int layer = -1;
  Value ids, positions, sequence, page_table, logit_rows, rope_table;
  std::vector<Value> k_pages, v_pages;

  std::string node(std::string_view name) const { return layer < 0 ? std::string(name) : message("blk.", layer, ".", name); }

  /// nullptr when the file has none; the shape is what the config asks for.
  const Tensor* find(std::string_view name, const Shape& shape, std::string_view suffix) const {
    const Tensor* tensor = weights.find(name, layer, suffix);
    if (tensor != nullptr)
      NIBBLE_CHECK(tensor->desc.shape == shape, weights.where(name, layer, suffix), ": expected shape ", to_string(shape),
                   ", found ", to_string(tensor->desc.shape));
    return tensor;
  }
  const Tensor& need(std::string_view name, const Shape& shape) const {
    const Tensor* tensor = find(name, shape, ".weight");
    NIBBLE_CHECK(tensor != nullptr, "architecture ", arch.name, " lists no weight '", name, "' for ", node("*"));
    return *tensor;
  }
  Value constant(std::string_view name, std::string_view suffix, const Tensor& tensor) {
    return graph.constant(node(name) + std::string(suffix), tensor);
  }

  /// x (m, k) times the weight (n, k), plus its bias.
  Value linear(Value x, std::string_view name, int64_t n) { return linear(x, name, n, name); }
  Value linear(Value x, std::string_view name, int64_t n, std::string_view node_name) {
    const Tensor& weight = need(name, {n, graph.desc(x).shape[-1]});
    Value y = graph.add(op("matmul"), {x, constant(name, ".weight", weight)}, {}, node(node_name));
    if (const Tensor* bias = find(name, {n}, ".bias"))
      y = graph.add(op("add"), {y, constant(name, ".bias", *bias)}, {}, node(node_name) + ".bias");
    return y;
  }
  Value norm(std::string_view op_name, Value x, std::string_view name) {
    const int64_t n = graph.desc(x).shape[-1];
    std::vector<Value> in = {x, constant(name, ".weight", need(name, {n}))};
    if (const Tensor* bias = find(name, {n}, ".bias")) in.push_back(constant(name, ".bias", *bias));
    return graph.add(op(op_name), in, {{"eps", double{config.norm_eps}}}, node(name));
  }
  Value rope(Value x, std::string_view name) {
    const char* pairing = config.pairing == Pairing::halves ? "halves" : "interleaved";
    return graph.add(op("rope"), {x, rope_table}, {{"head_dim", int64_t{config.head_dim}}, {"pairing", std::string(pairing)}},
                     node(name) + ".rope");
  }
  Value act(Value x, Act act) {
    static constexpr std::string_view names[] = {"silu", "gelu", "gelu_tanh", "relu"};
    const std::string_view name = names[static_cast<size_t>(act)];
    return graph.add(op(name), {x}, {}, node(name));
  }

  void inputs(const Sizes& sizes);
  Value embed();
};

void Builder::Impl::inputs(const Sizes& s) {
  ids = graph.input("ids", {{s.rows}, DType::i32});
  positions = graph.input("positions", {{s.rows}, DType::i32});
  sequence = graph.input("sequence", {{s.rows}, DType::i32});
  page_table = graph.input("page_table", {{s.sequences, s.max_pages}, DType::i32});
  if (s.logit_rows > 0) logit_rows = graph.input("logit_rows", {{s.logit_rows}, DType::i32});
  for (int i = 0; i < config.layers; ++i) {
    k_pages.push_back(graph.input(message("k_pages.", i), KvCache::k_desc(config, s.pages, s.cache)));
    v_pages.push_back(graph.input(message("v_pages.", i), KvCache::v_desc(config, s.pages, s.cache)));
  }
}

Value Builder::Impl::embed() {
  const Tensor& table = need("embedding", {config.vocab, config.width});
  return graph.add(op("embedding"), {ids, constant("embedding", ".weight", table)}, {}, "embedding");
}

Graph Builder::build(const Arch& arch, const Config& config, const Weights& weights, const Sizes& sizes) {
  Impl impl{.arch = arch, .config = config, .weights = weights, .graph = {}, .ids = {}, .positions = {}, .sequence = {},
            .page_table = {}, .logit_rows = {}, .rope_table = {}, .k_pages = {}, .v_pages = {}};
  impl.inputs(sizes);
  if (config.rope_dim > 0) {
    // an optional tensor that no block reads, so its shape is checked here
    impl.find("rope_factors", {config.rope_dim / 2}, ".weight");
    impl.rope_table = impl.graph.add(
        op("rope_table"), {impl.positions, impl.graph.constant("rope_frequencies", weights.rope_frequencies())},
        {{"attention_factor", double{config.rope_scaling.attention_factor}}}, "rope_table");
  }
  Builder builder(impl);
  Value x = impl.embed();
  for (impl.layer = 0; impl.layer < config.layers; ++impl.layer) x = arch.block(builder, x);
  impl.layer = -1;
  if (sizes.logit_rows > 0) {
    x = impl.graph.add(op("rows"), {x, impl.logit_rows}, {}, "logit_rows");
    impl.graph.output(arch.head(builder, x));
  }
  return std::move(impl.graph);
}

const Config& Builder::config() const { return impl_.config; }
int Builder::layer() const { return impl_.layer; }

Value Builder::rms_norm(Value x, std::string_view weight) { return impl_.norm("rms_norm", x, weight); }
Value Builder::layer_norm(Value x, std::string_view weight) { return impl_.norm("layer_norm", x, weight); }

Value Builder::linear(Value x, std::string_view weight) {
  const Tensor* tensor = impl_.weights.find(weight, impl_.layer);
  NIBBLE_CHECK(tensor != nullptr, "architecture ", impl_.arch.name, " lists no weight '", weight, "' for ", impl_.node("*"));
  return impl_.linear(x, weight, tensor->desc.shape[0]);
}

Value Builder::add(Value a, Value b) { return impl_.graph.add(op("add"), {a, b}, {}, impl_.node("add")); }

Value Builder::attention(Value x, const AttentionOptions& options) {
  const Config& c = impl_.config;
  Value q = impl_.linear(x, options.q, int64_t{c.heads} * c.head_dim);
  Value k = impl_.linear(x, options.k, int64_t{c.kv_heads} * c.head_dim);
  Value v = impl_.linear(x, options.v, int64_t{c.kv_heads} * c.value_size());
  if (options.rope && c.rope_dim > 0) {
    q = impl_.rope(q, options.q);
    k = impl_.rope(k, options.k);
  }
  const double scale = options.scale > 0 ? double{options.scale} : 1 / std::sqrt(double(c.head_dim));
  const int window = options.window > 0 ? options.window : c.window;
  Value y = impl_.graph.add(
      op("attention"),
      {q, k, v, impl_.positions, impl_.sequence, impl_.page_table, impl_.k_pages[impl_.layer], impl_.v_pages[impl_.layer]},
      {{"heads", int64_t{c.heads}}, {"kv_heads", int64_t{c.kv_heads}}, {"scale", scale}, {"window", int64_t{window}},
       {"softcap", double{options.softcap}}},
      impl_.node("attention"));
  return impl_.linear(y, options.o, c.width);
}

Value Builder::mlp(Value x, Act act) {
  const Config& c = impl_.config;
  return impl_.linear(impl_.act(impl_.linear(x, "up", c.ffn), act), "down", c.width);
}

Value Builder::mlp_gated(Value x, Act act) {
  const Config& c = impl_.config;
  Value gate = impl_.act(impl_.linear(x, "gate", c.ffn), act);
  Value up = impl_.linear(x, "up", c.ffn);
  return impl_.linear(impl_.graph.add(op("mul"), {gate, up}, {}, impl_.node("gated")), "down", c.width);
}

Value Builder::logits(Value x) {
  const bool tied = impl_.weights.find("output", -1) == nullptr;
  return impl_.linear(x, tied ? "embedding" : "output", impl_.config.vocab, "output");
}

}  // namespace nibble::models
