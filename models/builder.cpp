// SPDX-License-Identifier: Apache-2.0
#include "models/builder.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "models/config.h"
#include "models/kv_cache.h"
#include "tensor/buffer.h"
#include "tensor/check.h"
#include "tensor/op.h"

namespace nibble::models {

struct Builder::Impl {
  const Arch& arch;
  const Config& config;
  const Weights& weights;
  Graph graph;
  int layer = -1;
  Value ids, positions, sequence, page_table, logit_rows, rope_table, local_rope_table, slopes;
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
  bool layer_is(const std::vector<bool>& layers) const { return !layers.empty() && layers[static_cast<size_t>(layer)]; }
  bool windowed() const { return config.window > 0 && !layer_is(config.full_attention); }
  Value rope(Value x, std::string_view name) {
    const char* pairing = config.pairing == Pairing::halves ? "halves" : "interleaved";
    const bool local = config.local_rope_theta > 0 && windowed();
    return graph.add(op("rope"), {x, local ? local_rope_table : rope_table},
                     {{"head_dim", int64_t{config.head_dim}}, {"pairing", std::string(pairing)}}, node(name) + ".rope");
  }
  /// A constant that the graph owns.
  Value values(std::string_view name, const Shape& shape, std::span<const float> data) {
    auto buffer = std::make_shared<Buffer>(data.size_bytes());
    std::memcpy(buffer->data(), data.data(), data.size_bytes());
    const Tensor tensor({shape, DType::f32}, buffer->data());
    graph.owned.push_back(std::move(buffer));
    return graph.constant(node(name), tensor);
  }
  Value scale(Value x, float factor, std::string_view name) {
    return factor == 1 ? x : graph.add(op("mul"), {x, values(name, {}, {&factor, 1})}, {}, node(name));
  }
  Value softcap(Value x, float cap, std::string_view name) {
    if (cap == 0) return x;
    return scale(graph.add(op("tanh"), {scale(x, 1 / cap, name)}, {}, node(name)), cap, name);
  }
  Value clip(Value x) {
    return config.clip_qkv == 0 ? x : graph.add(op("clamp"), {x}, {{"limit", double{config.clip_qkv}}}, node("clip"));
  }
  Value heads_norm(Value x, std::string_view name, const AttentionOptions& options);
  Value act(Value x, Act act) {
    static constexpr std::string_view names[] = {"silu", "gelu", "gelu_tanh", "relu"};
    const std::string_view name = names[static_cast<size_t>(act)];
    return graph.add(op(name), {x}, {}, node(name));
  }

  void inputs(const Sizes& sizes);
  void position_tables(int64_t context);
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

void Builder::Impl::position_tables(int64_t context) {
  if (config.alibi_bias > 0) slopes = values("alibi_slopes", {config.heads}, alibi_slopes(config));
  if (config.rope_dim == 0) return;
  const auto table = [&](Value frequencies, float factor, std::string_view name) {
    return graph.add(op("rope_table"), {positions, frequencies}, {{"attention_factor", double{factor}}}, std::string(name));
  };
  // optional tensors that no block reads, so their shape is checked here
  for (std::string_view name : {"rope_factors", "rope_factors_short", "rope_factors_long"})
    find(name, {config.rope_dim / 2}, ".weight");
  const RopeScaling& scaling = config.rope_scaling;
  const bool beyond = scaling.type == RopeScaling::Type::longrope && context > scaling.original_context;
  rope_table = table(graph.constant("rope_frequencies", weights.rope_frequencies(beyond)), scaling.attention_factor, "rope_table");
  if (config.local_rope_theta == 0) return;
  Config local = config;
  local.rope_theta = config.local_rope_theta;
  local.rope_scaling = {};
  local_rope_table = table(values("local_rope_frequencies", {config.rope_dim / 2}, rope_frequencies(local, {})), 1, "local_rope_table");
}

/// x (m, heads * head_dim), normalized.
Value Builder::Impl::heads_norm(Value x, std::string_view name, const AttentionOptions& options) {
  if (options.qk_norm == Norm::none || weights.find(name, layer) == nullptr) return x;
  const std::string_view op_name = options.qk_norm == Norm::rms ? "rms_norm" : "layer_norm";
  if (options.qk_norm_rows) return norm(op_name, x, name);
  const int64_t m = graph.desc(x).shape[0], width = graph.desc(x).shape[1], d = config.head_dim;
  x = graph.add(op("reshape"), {x}, {{"rank", int64_t{3}}, {"d0", m}, {"d1", width / d}, {"d2", d}}, node(name) + ".heads");
  if (weights.find(name, layer)->desc.shape.rank() == 1) {
    x = norm(op_name, x, name);
  } else {
    x = graph.add(op(op_name), {x}, {{"eps", double{config.norm_eps}}}, node(name));
    x = graph.add(op("mul"), {x, constant(name, ".weight", need(name, {width / d, d}))}, {}, node(name) + ".weights");
  }
  return graph.add(op("reshape"), {x}, {{"rank", int64_t{2}}, {"d0", m}, {"d1", width}}, node(name) + ".rows");
}

Graph Builder::build(const Arch& arch, const Config& config, const Weights& weights, const Sizes& sizes) {
  Impl impl{.arch = arch, .config = config, .weights = weights, .graph = {}, .ids = {}, .positions = {}, .sequence = {},
            .page_table = {}, .logit_rows = {}, .rope_table = {}, .local_rope_table = {}, .slopes = {}, .k_pages = {},
            .v_pages = {}};
  impl.inputs(sizes);
  impl.position_tables(int64_t{sizes.max_pages} * KvCache::page_tokens);
  Builder builder(impl);
  Value x = arch.embed != nullptr ? arch.embed(builder) : builder.embedding();
  const Shape expected = {sizes.rows, config.width};
  NIBBLE_CHECK(impl.graph.desc(x).shape == expected, weights.where("embedding", -1), ": expected rows of ", config.width,
               " values, found ", impl.graph.desc(x).shape[-1]);
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
Value Builder::scale(Value x, float factor) { return impl_.scale(x, factor, "scale"); }
bool Builder::has(std::string_view weight) const { return impl_.weights.find(weight, impl_.layer) != nullptr; }

Value Builder::embedding() {
  const Tensor* table = impl_.weights.find("embedding", -1);
  NIBBLE_CHECK(table != nullptr, "architecture ", impl_.arch.name, " lists no weight 'embedding'");
  const Tensor& checked = impl_.need("embedding", {impl_.config.vocab, table->desc.shape[-1]});
  const Value x = impl_.graph.add(op("embedding"), {impl_.ids, impl_.constant("embedding", ".weight", checked)}, {}, "embedding");
  return impl_.scale(x, impl_.config.embedding_scale, "embedding_scale");
}

Value Builder::position_embedding() {
  const Tensor& table = impl_.need("position_embedding", {impl_.config.context, impl_.config.width});
  return impl_.graph.add(op("embedding"), {impl_.positions, impl_.constant("position_embedding", ".weight", table)}, {},
                         "position_embedding");
}

Value Builder::attention(Value x, const AttentionOptions& options) {
  const Config& c = impl_.config;
  Value q = impl_.clip(impl_.linear(x, "q", int64_t{c.heads} * c.head_dim));
  Value k = impl_.clip(impl_.linear(x, "k", int64_t{c.kv_heads} * c.head_dim));
  const Value v = impl_.clip(impl_.linear(x, "v", int64_t{c.kv_heads} * c.value_size()));
  q = impl_.heads_norm(q, "q_norm", options);
  k = impl_.heads_norm(k, "k_norm", options);
  if (c.rope_dim > 0 && !impl_.layer_is(c.no_rope)) {
    q = impl_.rope(q, "q");
    k = impl_.rope(k, "k");
  }
  const double scale = c.attention_scale > 0 ? double{c.attention_scale} : 1 / std::sqrt(double(c.head_dim));
  std::vector<Value> in = {q, k, v, impl_.positions, impl_.sequence, impl_.page_table, impl_.k_pages[impl_.layer],
                           impl_.v_pages[impl_.layer]};
  if (c.alibi_bias > 0) in.push_back(impl_.slopes);
  const Value y = impl_.graph.add(
      op("attention"), in,
      {{"heads", int64_t{c.heads}}, {"kv_heads", int64_t{c.kv_heads}}, {"scale", scale},
       {"window", int64_t{impl_.windowed() ? c.window : 0}}, {"softcap", double{c.attention_softcap}},
       {"slopes", int64_t{c.alibi_bias > 0}}},
      impl_.node("attention"));
  return impl_.linear(y, "o", c.width);
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
  const Config& c = impl_.config;
  const bool tied = impl_.weights.find("output", -1) == nullptr;
  x = impl_.linear(x, tied ? "embedding" : "output", c.vocab, "output");
  return impl_.softcap(impl_.scale(x, c.logit_scale, "logit_scale"), c.logit_softcap, "logit_softcap");
}

}  // namespace nibble::models
