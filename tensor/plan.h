// SPDX-License-Identifier: Apache-2.0
// A graph compiled once and replayed: passes, kernel choice, memory layout. Running allocates, looks up and logs
// nothing.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/cpu.h"
#include "tensor/graph.h"
#include "tensor/parallel.h"

namespace nibble {

class Profile;

struct PlanOptions {
  Isa max_isa = nibble::max_isa();
  int threads = 1;  ///< size of the pool it will run on
  /// Refuse kernels whose sums depend on the number of rows (oneDNN): same bits for every batch and chunk size.
  bool fixed_sum_order = true;
  bool run_passes = true;
};

/// Immutable after compile. Keeps the graph's nodes and constants' addresses, not the Graph. One plan may run on one
/// pool at a time (it owns its arena).
class Plan {
 public:
  /// Throws Error naming the node when shapes, constants or kernels don't fit.
  static Plan compile(const Graph& graph, const PlanOptions& options);
  ~Plan();
  Plan(Plan&&) noexcept;
  Plan& operator=(Plan&&) noexcept;

  /// in and out follow Graph::inputs and Graph::outputs: the descriptions must match, all must be contiguous, and
  /// no output may overlap an input or another output. Throws Error when they don't fit or when the pool's size is not
  /// the one compiled for. An exception from a kernel is rethrown as Error
  /// with the node's name; the outputs are then undefined and the plan stays usable.
  void run(ThreadPool& pool, std::span<const Tensor> in, std::span<const Tensor> out);

  /// A table: node, kernel, estimated cost, and for every candidate that lost its cost or reason.
  std::string explain() const;
  /// Node, op and kernel ("reference" if none was usable) of every step, in order; they point into this plan.
  struct StepName {
    std::string_view node, op, kernel;
  };
  std::vector<StepName> steps() const;
  /// Bytes of the arena (intermediate values laid out by liveness) and of scratch.
  size_t arena_bytes() const;
  /// The graph after passes, for tests.
  const Graph& graph() const;

  /// Per-node times from now on; nullptr switches it off. Not owned; its events point into this plan. A run adds up to
  /// nodes * threads events: reserve them first, or recording allocates.
  void set_profile(Profile* profile);

 private:
  struct Impl;
  explicit Plan(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace nibble
