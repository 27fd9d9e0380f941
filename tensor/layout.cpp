// SPDX-License-Identifier: Apache-2.0
#include "tensor/layout.h"

#include "tensor/arena.h"
#include "tensor/check.h"
#include "tensor/op.h"

namespace nibble {

namespace {

View resolve(const Graph& graph, const Node& node, const View& in) {
  // The view function only moves the address, so any base will do to learn by how much.
  auto* const base = reinterpret_cast<std::byte*>(uintptr_t{1} << 40);
  Tensor tensor;
  tensor.desc = graph.desc(node.in[0]);
  tensor.strides = in.strides;
  tensor.data = base + in.offset;
  Tensor result;
  try {
    result = node.op->view(tensor, node.attrs);
  } catch (const Error& e) {
    fail("node ", node.name, " (", node.op->name, "): ", e.what());
  }
  NIBBLE_CHECK(result.desc == graph.desc(node.out), "node ", node.name, " (", node.op->name, "): its view is ",
               to_string(result.desc), ", expected ", to_string(graph.desc(node.out)));
  return {in.root, result.data - base, result.strides};
}

/// The output's value covers its root from the first to the last byte in order.
bool covers_root(const Graph& graph, const View& view, Value v) {
  const TensorDesc& desc = graph.desc(v);
  if (view.root == v.id) return true;
  return view.offset == 0 && desc.dtype != DType::packed && view.strides == contiguous_strides(desc.shape) &&
         bytes(desc) == bytes(graph.values[view.root]);
}

void place_outputs(const Graph& graph, Layout& layout) {
  for (size_t i = 0; i < graph.outputs.size(); ++i) {
    const Value v = graph.outputs[i];
    const View& view = layout.views[v.id];
    Place& place = layout.places[view.root];
    const bool in_place = place.kind == Place::arena && covers_root(graph, view, v);
    if (in_place) place = {.kind = Place::output, .index = i};
    layout.in_place.push_back(in_place);
  }
}

void place_in_arena(const Graph& graph, Layout& layout) {
  const int end = static_cast<int>(graph.nodes.size());
  std::vector<Lifetime> lifetimes(graph.values.size());
  for (int i = 0; i < end; ++i) {
    const Node& node = graph.nodes[static_cast<size_t>(i)];
    if (node.op->view) continue;
    for (Value v : node.in) lifetimes[layout.views[v.id].root].last = i;
    lifetimes[node.out.id] = {bytes(graph.desc(node.out)), i, i};
  }
  for (size_t i = 0; i < graph.outputs.size(); ++i) {
    if (!layout.in_place[i])
      lifetimes[layout.views[graph.outputs[i].id].root].last = end;  // copied after the last step
  }
  std::vector<Lifetime> packed;
  std::vector<Place*> places;
  for (size_t v = 0; v < graph.values.size(); ++v) {
    if (layout.places[v].kind != Place::arena) continue;
    packed.push_back(lifetimes[v]);
    places.push_back(&layout.places[v]);
  }
  const ArenaLayout arena = lay_out(packed);
  for (size_t i = 0; i < places.size(); ++i) places[i]->offset = arena.offsets[i];
  layout.arena_bytes = arena.bytes;
}

}  // namespace

Layout plan_layout(const Graph& graph) {
  Layout layout;
  layout.views.resize(graph.values.size());
  layout.places.resize(graph.values.size());
  auto add_root = [&](Value v, const Place& place, const Shape& strides) {
    layout.places[v.id] = place;
    layout.views[v.id] = {v.id, 0, strides};
  };
  for (size_t i = 0; i < graph.inputs.size(); ++i) {
    const Value v = graph.inputs[i];
    add_root(v, {.kind = Place::input, .index = i}, contiguous_strides(graph.desc(v).shape));
  }
  for (size_t v = 0; v < graph.values.size(); ++v) {
    if (graph.constants[v].data)
      add_root({static_cast<int32_t>(v)}, {.kind = Place::constant}, graph.constants[v].strides);
  }
  for (const Node& node : graph.nodes) {
    for (Value v : node.in) {
      NIBBLE_CHECK(layout.views[v.id].root >= 0, "node ", node.name, " (", node.op->name, "): value ", v.id,
                   " is used before anything makes it");
    }
    if (node.op->view) {
      layout.views[node.out.id] = resolve(graph, node, layout.views[node.in[0].id]);
    } else {
      add_root(node.out, {.kind = Place::arena}, contiguous_strides(graph.desc(node.out).shape));
    }
  }
  for (Value v : graph.outputs) {
    NIBBLE_CHECK(layout.views[v.id].root >= 0, "graph output: nothing makes value ", v.id);
  }
  place_outputs(graph, layout);
  place_in_arena(graph, layout);
  return layout;
}

}  // namespace nibble
