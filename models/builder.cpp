// SPDX-License-Identifier: Apache-2.0
#include "models/builder.h"

#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <type_traits>
#include <vector>

#include "models/config.h"
#include "models/kv_cache.h"
#include "tensor/buffer.h"
#include "tensor/check.h"
#include "tensor/op.h"
#include "tensor/panel.h"

namespace nibble::models {

struct Builder::Impl {
  const Arch& arch;
  const Config& config;
  const Weights& weights;
  Graph graph;
  int layer = -1;
  Value ids, positions, sequence, page_table, logit_rows, rope_table, local_rope_table, slopes;
  Value head_groups;  // of per_head
  Value ends, first_positions, second_positions, second_rope_table;  // with Config::prefix
  std::vector<Value> k_pages, v_pages;
  std::map<std::pair<int32_t, const Tensor*>, Value> columns_of;

  std::string node(std::string_view name) const {
    return layer < 0 ? std::string(name) : message("blk.", layer, ".", name);
  }

  /// nullptr when the file has none; the shape is what the config asks for.
  const Tensor* find(std::string_view name, const Shape& shape, std::string_view suffix) const {
    const Tensor* tensor = weights.find(name, layer, suffix);
    if (tensor != nullptr)
      NIBBLE_CHECK(tensor->desc.shape == shape, weights.where(name, layer, suffix), ": expected shape ",
                   to_string(shape), ", found ", to_string(tensor->desc.shape));
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

  /// x with its columns as the weight has them; weights with the same order share it.
  Value ordered(Value x, std::string_view name) {
    const Tensor* order = weights.order(name, layer);
    if (order == nullptr) return x;
    Value& y = columns_of[{x.id, order}];
    if (y.id < 0)
      y = graph.add(op("columns"), {x, graph.constant(node(name) + ".order", *order)}, {}, node(name) + ".columns");
    return y;
  }
  /// x (m, k) times the weight (n, k), plus its bias.
  Value linear(Value x, std::string_view name, int64_t n) { return linear(x, name, n, name); }
  Value linear(Value x, std::string_view name, int64_t n, std::string_view node_name) {
    const Tensor& weight = need(name, {n, graph.desc(x).shape[-1]});
    x = ordered(x, name);
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
  bool has_prefix() const { return config.prefix.end >= 0; }
  /// By all the positions that there are.
  Value rope(Value x) {
    if (has_prefix()) x = rope(x, config.head_dim, config.rope_dim, second_rope_table);
    return rope(x, config.head_dim, 0, config.local_rope_theta > 0 && windowed() ? local_rope_table : rope_table);
  }
  Value rope(Value x, int head_dim, int begin, Value table) {
    const char* pairing = config.pairing == Pairing::halves ? "halves" : "interleaved";
    return graph.add(op("rope"), {x, table},
                     {{"head_dim", int64_t{head_dim}}, {"pairing", std::string(pairing)}, {"begin", int64_t{begin}}},
                     node("rope"));
  }
  /// x (m, heads * size) as (m, heads, size)
  Value split_heads(Value x, int64_t size) {
    const Shape shape = graph.desc(x).shape;
    return graph.add(op("reshape"), {x},
                     {{"rank", int64_t{3}}, {"d0", shape[0]}, {"d1", shape[1] / size}, {"d2", size}}, node("heads"));
  }
  Value join_heads(Value x) {
    const Shape shape = graph.desc(x).shape;
    return graph.add(op("reshape"), {x}, {{"rank", int64_t{2}}, {"d0", shape[0]}, {"d1", shape[1] * shape[2]}},
                     node("rows"));
  }
  /// A constant that the graph owns.
  template <class T>
  Value values(std::string_view name, const Shape& shape, std::span<const T> data) {
    auto buffer = std::make_shared<Buffer>(data.size_bytes());
    std::memcpy(buffer->data(), data.data(), data.size_bytes());
    const Tensor tensor({shape, std::is_same_v<T, float> ? DType::f32 : DType::i32}, buffer->data());
    graph.owned.push_back(std::move(buffer));
    return graph.constant(node(name), tensor);
  }
  Value scale(Value x, float factor, std::string_view name) {
    return factor == 1 ? x : graph.add(op("mul"), {x, values<float>(name, {}, {&factor, 1})}, {}, node(name));
  }
  Value softcap(Value x, float cap, std::string_view name) {
    if (cap == 0) return x;
    return scale(graph.add(op("tanh"), {scale(x, 1 / cap, name)}, {}, node(name)), cap, name);
  }
  Value view(std::string_view op_name, Value x, const Attrs& attrs, std::string_view name) {
    return graph.add(op(op_name), {x}, attrs, node(name));
  }
  Value attention(std::vector<Value> in, int kv_heads, bool tails);
  Value head_rows(Value x, int64_t size, int64_t used);
  Value token_rows(Value x);
  Value per_head(Value x, std::string_view name, int64_t n);
  Value clip(Value x) {
    return config.clip_qkv == 0 ? x : graph.add(op("clamp"), {x}, {{"limit", double{config.clip_qkv}}}, node("clip"));
  }
  Value heads_norm(Value x, std::string_view name, const AttentionOptions& options);
  Value gated(Value gate, Value up) {
    return graph.add(op("mul"), {act(gate, config.act), up}, {}, node("gated"));
  }
  Value experts(Value x, Value groups, std::string_view name, int64_t n, bool grouped);
  Value experts_mlp(Value x, Value groups);
  Value shared_expert(Value x);
  static std::string_view act_name(Act act) {
    static constexpr std::string_view names[] = {"silu", "gelu", "gelu_tanh", "relu"};
    return names[static_cast<size_t>(act)];
  }
  Value act(Value x, Act act) { return graph.add(op(act_name(act)), {x}, {}, node(act_name(act))); }
  /// One matrix (n, k) for each expert, or head, as Weights stacks them.
  const Tensor& expert_stack(std::string_view name, int count, int64_t n, int64_t k) const {
    const int64_t padded = (n + panel_columns - 1) / panel_columns * panel_columns;
    NIBBLE_CHECK(weights.experts(name, layer) == count, weights.where(name, layer), ": expected ", count,
                 " matrices, found ", weights.experts(name, layer));
    NIBBLE_CHECK(weights.expert(name, layer, 0).desc.shape == Shape({n, k}), weights.where(name, layer),
                 ": expected shape ", to_string(Shape{n, k}), " for each, found ",
                 to_string(weights.expert(name, layer, 0).desc.shape));
    return need(name, {count * padded, k});
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
  if (has_prefix()) {
    ends = graph.input("ends", {{s.rows}, DType::i32});
    first_positions = graph.input("first_positions", {{s.rows}, DType::i32});
    second_positions = graph.input("second_positions", {{s.rows}, DType::i32});
  }
  for (int i = 0; i < config.layers; ++i) {
    k_pages.push_back(graph.input(message("k_pages.", i), KvCache::k_desc(config, s.pages, s.cache)));
    v_pages.push_back(graph.input(message("v_pages.", i), KvCache::v_desc(config, s.pages, s.cache)));
  }
}

void Builder::Impl::position_tables(int64_t context) {
  if (config.alibi_bias > 0) slopes = values<float>("alibi_slopes", {config.heads}, alibi_slopes(config));
  if (config.rope_dim == 0) return;
  const auto table_of = [&](Value at, Value frequencies, float factor, std::string_view name) {
    return graph.add(op("rope_table"), {at, frequencies}, {{"attention_factor", double{factor}}}, std::string(name));
  };
  const auto table = [&](Value frequencies, float factor, std::string_view name) {
    return table_of(has_prefix() ? first_positions : positions, frequencies, factor, name);
  };
  // optional tensors that no block reads, so their shape is checked here
  for (std::string_view name : {"rope_factors", "rope_factors_short", "rope_factors_long"})
    find(name, {config.rope_dim / 2}, ".weight");
  const RopeScaling& scaling = config.rope_scaling;
  const bool beyond = scaling.type == RopeScaling::Type::longrope && context > scaling.original_context;
  const Value frequencies = graph.constant("rope_frequencies", weights.rope_frequencies(beyond));
  rope_table = table(frequencies, scaling.attention_factor, "rope_table");
  if (has_prefix())
    second_rope_table = table_of(second_positions, frequencies, scaling.attention_factor, "second_rope_table");
  if (config.local_rope_theta == 0) return;
  Config local = config;
  local.rope_theta = config.local_rope_theta;
  local.rope_scaling = {};
  local_rope_table = table(values<float>("local_rope_frequencies", {config.rope_dim / 2}, rope_frequencies(local, {})),
                           1, "local_rope_table");
}

/// x (m, heads * head_dim), normalized.
Value Builder::Impl::heads_norm(Value x, std::string_view name, const AttentionOptions& options) {
  if (options.qk_norm == Norm::none || weights.find(name, layer) == nullptr) return x;
  const std::string_view op_name = options.qk_norm == Norm::rms ? "rms_norm" : "layer_norm";
  if (options.qk_norm_rows) return norm(op_name, x, name);
  const int64_t width = graph.desc(x).shape[1], d = config.head_dim;
  x = split_heads(x, d);
  if (weights.find(name, layer)->desc.shape.rank() == 1) {
    x = norm(op_name, x, name);
  } else {
    x = graph.add(op(op_name), {x}, {{"eps", double{config.norm_eps}}}, node(name));
    x = graph.add(op("mul"), {x, constant(name, ".weight", need(name, {width / d, d}))}, {}, node(name) + ".weights");
  }
  return join_heads(x);
}

Graph Builder::build(const Arch& arch, const Config& config, const Weights& weights, const Sizes& sizes) {
  Impl impl{.arch = arch,
            .config = config,
            .weights = weights,
            .graph = {},
            .ids = {},
            .positions = {},
            .sequence = {},
            .page_table = {},
            .logit_rows = {},
            .rope_table = {},
            .local_rope_table = {},
            .slopes = {},
            .head_groups = {},
            .ends = {},
            .first_positions = {},
            .second_positions = {},
            .second_rope_table = {},
            .k_pages = {},
            .v_pages = {},
            .columns_of = {}};
  impl.inputs(sizes);
  impl.position_tables(int64_t{sizes.max_pages} * KvCache::page_tokens);
  Builder builder(impl);
  Value x = arch.embed != nullptr ? arch.embed(builder) : builder.embedding();
  const Shape expected = {sizes.rows, config.width};
  NIBBLE_CHECK(impl.graph.desc(x).shape == expected, weights.where("embedding", -1), ": expected rows of ",
               config.width, " values, found ", impl.graph.desc(x).shape[-1]);
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
  NIBBLE_CHECK(tensor != nullptr, "architecture ", impl_.arch.name, " lists no weight '", weight, "' for ",
               impl_.node("*"));
  return impl_.linear(x, weight, tensor->desc.shape[0]);
}

Value Builder::add(Value a, Value b) { return impl_.graph.add(op("add"), {a, b}, {}, impl_.node("add")); }
Value Builder::scale(Value x, float factor) { return impl_.scale(x, factor, "scale"); }
bool Builder::has(std::string_view weight) const { return impl_.weights.find(weight, impl_.layer) != nullptr; }

Value Builder::embedding() {
  const Tensor* table = impl_.weights.find("embedding", -1);
  NIBBLE_CHECK(table != nullptr, "architecture ", impl_.arch.name, " lists no weight 'embedding'");
  const Tensor& checked = impl_.need("embedding", {impl_.config.vocab, table->desc.shape[-1]});
  const Value x =
      impl_.graph.add(op("embedding"), {impl_.ids, impl_.constant("embedding", ".weight", checked)}, {}, "embedding");
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
    q = impl_.rope(q);
    k = impl_.rope(k);
  }
  return attend(q, k, v);
}

Value Builder::rope(Value x, int head_dim, int begin) { return impl_.rope(x, head_dim, begin, impl_.rope_table); }

/// `in` holds q, k and v.
Value Builder::Impl::attention(std::vector<Value> in, int kv_heads, bool tails) {
  const double scale =
      config.attention_scale > 0 ? double{config.attention_scale} : 1 / std::sqrt(double(config.head_dim));
  in.insert(in.end(), {positions, sequence, page_table, k_pages[layer], v_pages[layer]});
  if (config.alibi_bias > 0) in.push_back(slopes);
  const Tensor* sinks = find("sinks", {config.heads}, ".weight");
  if (sinks != nullptr) in.push_back(constant("sinks", ".weight", *sinks));
  if (has_prefix()) in.push_back(ends);
  return graph.add(op("attention"), in,
                   {{"heads", int64_t{config.heads}}, {"kv_heads", int64_t{kv_heads}}, {"scale", scale},
                    {"window", int64_t{windowed() ? config.window : 0}}, {"softcap", double{config.attention_softcap}},
                    {"slopes", int64_t{config.alibi_bias > 0}}, {"sinks", int64_t{sinks != nullptr}},
                    {"ends", int64_t{has_prefix()}}, {"tails", int64_t{tails}}},
                   node("attention"));
}

Value Builder::attend(Value q, Value k, Value v) {
  return impl_.linear(impl_.attention({q, k, v}, impl_.config.kv_heads, false), "o", impl_.config.width);
}

/// x (m, heads * size) as (heads * m, used): the first `used` elements of each head, ordered by head.
Value Builder::Impl::head_rows(Value x, int64_t size, int64_t used) {
  const int64_t m = graph.desc(x).shape[0], heads = graph.desc(x).shape[1] / size;
  if (m == 1) {
    x = view("reshape", x, {{"rank", 2}, {"d0", heads}, {"d1", size}}, "heads");
    return used == size ? x : view("slice", x, {{"dim", 1}, {"begin", 0}, {"size", used}}, "heads");
  }
  x = split_heads(x, size);
  if (used < size) x = view("slice", x, {{"dim", 2}, {"begin", 0}, {"size", used}}, "heads");
  x = view("permute", x, {{"p0", 1}, {"p1", 0}, {"p2", 2}}, "heads");
  x = graph.add(op("copy"), {x}, {}, node("by_head"));
  return view("reshape", x, {{"rank", 2}, {"d0", heads * m}, {"d1", used}}, "heads");
}

/// x (heads * m, n), ordered by head, as (m, heads, n).
Value Builder::Impl::token_rows(Value x) {
  const int64_t heads = config.heads, m = graph.desc(x).shape[0] / heads, n = graph.desc(x).shape[1];
  if (m == 1) return view("reshape", x, {{"rank", 3}, {"d0", m}, {"d1", heads}, {"d2", n}}, "heads");
  x = view("reshape", x, {{"rank", 3}, {"d0", heads}, {"d1", m}, {"d2", n}}, "heads");
  return view("permute", x, {{"p0", 1}, {"p1", 0}, {"p2", 2}}, "heads");
}

/// x (heads * m, k), ordered by head, times each head's matrix (n, k).
Value Builder::Impl::per_head(Value x, std::string_view name, int64_t n) {
  const int32_t heads = config.heads, m = static_cast<int32_t>(graph.desc(x).shape[0]) / heads;
  if (head_groups.id < 0) {
    // as of rows that all choose every head, in order
    std::vector<int32_t> groups;
    for (int32_t h = 0; h <= heads; ++h) groups.push_back(h * m);
    for (int32_t row = 0; row < heads * m; ++row) groups.push_back(row % m * heads + row / m);
    for (int32_t pair = 0; pair < heads * m; ++pair) groups.push_back(pair % heads * m + pair / heads);
    head_groups = values<int32_t>("head_groups", {static_cast<int64_t>(groups.size())}, groups);
  }
  const Tensor& weight = expert_stack(name, heads, n, graph.desc(x).shape[1]);
  x = ordered(x, name);
  return graph.add(op("matmul_experts"), {x, constant(name, ".weight", weight), head_groups},
                   {{"experts", int64_t{heads}}, {"n", n}, {"chosen", int64_t{heads}}, {"grouped", 1}}, node(name));
}

Value Builder::attend_latent(Value q, Value latent, Value rotated) {
  const Config& c = impl_.config;
  const int64_t d = c.head_dim, plain = d - c.rope_dim;
  const Value absorbed = impl_.token_rows(impl_.per_head(impl_.head_rows(q, d, plain), "k", c.latent));
  const Attrs rotated_part = {{"dim", 2}, {"begin", plain}, {"size", int64_t{c.rope_dim}}};
  const Value tails = impl_.view("slice", impl_.split_heads(q, d), rotated_part, "heads");
  q = impl_.join_heads(impl_.graph.add(op("concat"), {absorbed, tails}, {{"dim", 2}}, impl_.node("absorbed")));
  const Value y = impl_.attention({q, latent, rotated}, 1, true);
  Value heads = impl_.token_rows(impl_.per_head(impl_.head_rows(y, c.latent, c.latent), "v", c.value_size()));
  if (impl_.graph.desc(heads).shape[0] > 1) heads = impl_.graph.add(op("copy"), {heads}, {}, impl_.node("by_token"));
  return impl_.linear(impl_.join_heads(heads), "o", c.width);
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

/// The grouped rows of x, or those of the tokens, times the weight (n, k) of each row's expert, plus its bias.
Value Builder::Impl::experts(Value x, Value groups, std::string_view name, int64_t n, bool grouped) {
  const Experts& e = config.experts;
  std::vector<Value> in = {x, constant(name, ".weight", expert_stack(name, e.count, n, graph.desc(x).shape[-1])),
                           groups};
  const Tensor* bias = find(name, {e.count, n}, ".bias");
  if (bias != nullptr) in.push_back(constant(name, ".bias", *bias));
  return graph.add(op("matmul_experts"), in,
                   {{"experts", int64_t{e.count}},
                    {"n", n},
                    {"chosen", int64_t{e.chosen}},
                    {"grouped", int64_t{grouped}},
                    {"bias", int64_t{bias != nullptr}}},
                   node(name));
}

/// act(gate(x)) * up(x), grouped.
Value Builder::Impl::experts_mlp(Value x, Value groups) {
  const Experts& e = config.experts;
  const Tensor &gate = expert_stack("gate_experts", e.count, e.ffn, graph.desc(x).shape[-1]);
  const Tensor &up = expert_stack("up_experts", e.count, e.ffn, graph.desc(x).shape[-1]);
  const bool biased =
      weights.find("gate_experts", layer, ".bias") != nullptr || weights.find("up_experts", layer, ".bias") != nullptr;
  if (gate.desc == up.desc && !biased && e.clamp_limit == 0)
    return graph.add(op("matmul_experts"),
                     {x, constant("gate_experts", ".weight", gate), constant("up_experts", ".weight", up), groups},
                     {{"experts", int64_t{e.count}},
                      {"n", int64_t{e.ffn}},
                      {"chosen", int64_t{e.chosen}},
                      {"gate", std::string(act_name(config.act))}},
                     node("gate_experts+up_experts"));
  const Value g = experts(x, groups, "gate_experts", e.ffn, false), u = experts(x, groups, "up_experts", e.ffn, false);
  if (e.clamp_limit == 0) return gated(g, u);
  return graph.add(op("clamped_swiglu"), {g, u}, {{"limit", double{e.clamp_limit}}, {"alpha", double{e.clamp_alpha}}},
                   node("clamped_swiglu"));
}

/// A mixture of one expert, where it has a router of its own.
Value Builder::Impl::shared_expert(Value x) {
  const int64_t ffn = weights.find("shared_gate", layer)->desc.shape[0];
  const Value y =
      linear(gated(linear(x, "shared_gate", ffn), linear(x, "shared_up", ffn)), "shared_down", config.width);
  if (weights.find("shared_router", layer) == nullptr) return y;
  const Value logits = linear(x, "shared_router", 1);
  const Value chosen = graph.add(op("choose_experts"), {logits}, {{"count", 1}}, node("shared_choice"));
  const Value weight =
      graph.add(op("expert_weights"), {logits, chosen}, {{"score", std::string("sigmoid")}}, node("shared_weight"));
  const Value groups = graph.add(op("group_experts"), {chosen}, {{"experts", 1}}, node("shared_groups"));
  return graph.add(op("combine_experts"), {y, groups, weight}, {}, node("shared_expert"));
}

Value Builder::moe(Value x) {
  const Experts& e = impl_.config.experts;
  Graph& graph = impl_.graph;
  const std::string score = e.sigmoid ? "sigmoid" : "softmax";
  const Value logits = impl_.linear(x, "router", e.count);
  std::vector<Value> choice = {logits};
  const Tensor* bias = impl_.find("router_choice", {e.count}, ".weight");
  if (bias != nullptr) choice.push_back(impl_.constant("router_choice", ".weight", *bias));
  const Value chosen = graph.add(op("choose_experts"), choice,
                                 {{"count", int64_t{e.chosen}}, {"score", score}, {"bias", int64_t{bias != nullptr}},
                                  {"groups", int64_t{e.groups}}, {"kept_groups", int64_t{e.kept_groups}},
                                  {"group_best", int64_t{e.group_best}}}, impl_.node("choice"));
  const Value weight = graph.add(op("expert_weights"), {logits, chosen},
                                 {{"score", score}, {"normalize", int64_t{e.normalize}}, {"scale", double{e.scale}}},
                                 impl_.node("expert_weights"));
  const Value groups = graph.add(op("group_experts"), {chosen}, {{"experts", int64_t{e.count}}}, impl_.node("groups"));
  Value y = impl_.experts(impl_.experts_mlp(x, groups), groups, "down_experts", impl_.config.width, true);
  y = graph.add(op("combine_experts"), {y, groups, weight}, {}, impl_.node("experts"));
  return has("shared_gate") ? add(y, impl_.shared_expert(x)) : y;
}

Value Builder::moe_or_mlp(Value x) { return has("router") ? moe(x) : mlp_gated(x, impl_.config.act); }

Value Builder::logits(Value x) {
  const Config& c = impl_.config;
  const bool tied = impl_.weights.find("output", -1) == nullptr;
  x = impl_.linear(x, tied ? "embedding" : "output", c.vocab, "output");
  return impl_.softcap(impl_.scale(x, c.logit_scale, "logit_scale"), c.logit_softcap, "logit_softcap");
}

}  // namespace nibble::models
