// SPDX-License-Identifier: Apache-2.0
#include "apps/roofline.h"

#include <algorithm>
#include <map>

#include "tensor/graph.h"
#include "tensor/op.h"
#include "tensor/tensor.h"
#include "tensor/text_table.h"

namespace nibble::cli {

namespace {

struct Cost {
  double bytes = 0, operations = 0;
  bool integer = false, streams = false;
};

Cost attention_cost(const Graph& graph, const Node& node, double positions, double attended) {
  const Shape &q = graph.desc(node.in[0]).shape, &keys = graph.desc(node.in[1]).shape,
              &values = graph.desc(node.in[2]).shape;
  const TensorDesc& pages = graph.desc(node.in[6]);
  const double element =
      static_cast<double>(bytes(pages)) / static_cast<double>(std::max<int64_t>(pages.shape.elements(), 1));
  Cost out;
  out.streams = true;
  out.bytes = positions * static_cast<double>(keys[-1] + values[-1]) * element;
  const double value_width = static_cast<double>(graph.desc(node.out).shape[-1]);
  out.operations = 2 * static_cast<double>(q[0]) * attended * (static_cast<double>(q[-1]) + value_width);
  return out;
}

Cost cost_of(const Graph& graph, const Node& node, double positions, double attended) {
  const std::string_view op = node.op->name;
  if (op == "attention") return attention_cost(graph, node, positions, attended);
  Cost out;
  const double rows = static_cast<double>(graph.desc(node.out).shape[0]);
  out.bytes = static_cast<double>(bytes(graph.desc(node.out)));
  for (Value value : node.in) {
    const TensorDesc& desc = graph.desc(value);
    const bool weight = graph.is_constant(value) && desc.shape.rank() == 2;
    if (op == "embedding" && weight) {  // only the rows asked for
      out.bytes += static_cast<double>(bytes(desc)) / static_cast<double>(desc.shape[0]) * rows;
      continue;
    }
    const bool chosen_rows = op == "rows" && value == node.in[0];
    out.bytes += static_cast<double>(bytes(chosen_rows ? graph.desc(node.out) : desc));
    out.streams |= weight;
    if (weight && op.starts_with("matmul")) out.operations += 2 * rows * static_cast<double>(desc.shape.elements());
  }
  out.integer = op == "matmul_q";
  return out;
}

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", digits, value);
  return text;
}

}  // namespace

double RooflineRow::bound_seconds(const Roofs& roofs) const {
  const double peak = integer ? roofs.int8_peak : roofs.f32_peak;
  const double reading = streams && roofs.bandwidth > 0 ? bytes / roofs.bandwidth : 0;
  return std::max(reading, peak > 0 ? operations / peak : 0);
}

std::string RooflineRow::bound(const Roofs& roofs) const {
  const double seconds_bound = bound_seconds(roofs);
  if (seconds_bound <= 0) return "";
  const double peak = integer ? roofs.int8_peak : roofs.f32_peak;
  return peak > 0 && operations / peak >= seconds_bound ? (integer ? "int8" : "f32") : "bandwidth";
}

Roofline make_roofline(std::string title, const Roofs& roofs, const Plan& plan, const Profile& profile,
                       double positions, double attended) {
  std::map<std::string_view, Cost> costs;
  for (const Node& node : plan.graph().nodes) costs[node.name] = cost_of(plan.graph(), node, positions, attended);
  std::map<std::pair<std::string, std::string>, RooflineRow> rows;
  for (const Profile::Event& event : profile.events()) {
    if (event.worker != 0) continue;  // it takes part in every node: its events are the wall time
    RooflineRow& row = rows[{std::string(event.op), std::string(event.kernel)}];
    const Cost& cost = costs[event.node];
    row.op = event.op;
    row.kernel = event.kernel;
    ++row.calls;
    row.seconds += static_cast<double>(event.barrier_ns - event.begin_ns) * 1e-9;
    row.bytes += cost.bytes;
    row.operations += cost.operations;
    row.integer = cost.integer;
    row.streams |= cost.streams;
  }
  Roofline out{std::move(title), roofs, {}};
  for (auto& [key, row] : rows) out.rows.push_back(std::move(row));
  std::stable_sort(out.rows.begin(), out.rows.end(),
                   [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
  return out;
}

std::string roofline_table(const Roofline& roofline) {
  double total = 0;
  for (const RooflineRow& row : roofline.rows) total += row.seconds;
  TextTable table({"op", "kernel", "calls", "ms", "time", "GB/s", "GOP/s", "bound", "of bound"});
  for (const RooflineRow& row : roofline.rows) {
    const std::string bound = row.bound(roofline.roofs);
    table.row({row.op, row.kernel, std::to_string(row.calls), fixed(row.seconds * 1e3, 2),
               fixed(100 * row.seconds / total, 1) + "%", fixed(row.bytes / row.seconds / 1e9, 2),
               row.operations > 0 ? fixed(row.operations / row.seconds / 1e9, 1) : "", bound,
               bound.empty() ? "" : fixed(100 * row.bound_seconds(roofline.roofs) / row.seconds, 1) + "%"});
  }
  const Roofs& roofs = roofline.roofs;
  return roofline.title + ": bandwidth " + fixed(roofs.bandwidth / 1e9, 1) + " GB/s, int8 peak " +
         fixed(roofs.int8_peak / 1e9, 0) + " GOP/s, f32 peak " + fixed(roofs.f32_peak / 1e9, 0) + " GOP/s\n" +
         table.text();
}

}  // namespace nibble::cli
