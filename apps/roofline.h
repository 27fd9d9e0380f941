// SPDX-License-Identifier: Apache-2.0
// What each op of a plan reaches of the bound that limits it. Internal to apps/.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tensor/plan.h"
#include "tensor/profile.h"

namespace nibble::cli {

struct Roofs {
  double bandwidth = 0, int8_peak = 0, f32_peak = 0;  ///< bytes/s, operations/s; 0: not measured
};

/// All nodes of one op and kernel.
struct RooflineRow {
  std::string op, kernel;
  int64_t calls = 0;
  double seconds = 0, bytes = 0, operations = 0;
  bool integer = false;   ///< which peak bounds it
  bool streams = false;  ///< reads weights or cache from memory; what only touches activations finds them in the caches

  double bound_seconds(const Roofs& roofs) const;
  /// "bandwidth", "int8" or "f32"; "" for what neither bounds.
  std::string bound(const Roofs& roofs) const;
};

struct Roofline {
  std::string title;  ///< "tg128, 2 threads"
  Roofs roofs;
  std::vector<RooflineRow> rows;  ///< the slowest first
};

/// Costs are counted from the plan's graph: weights and activations once each, two operations per multiply-add;
/// attention reads `positions` keys and values for every sequence and multiplies `attended` of them per row.
Roofline make_roofline(std::string title, const Roofs& roofs, const Plan& plan, const Profile& profile,
                       double positions, double attended);
std::string roofline_table(const Roofline& roofline);
/// One picture, the charts below each other: log-log axes, roof lines, a labelled point per row with operations.
std::string roofline_svg(const std::vector<Roofline>& rooflines);

}  // namespace nibble::cli
