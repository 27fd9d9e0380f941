// SPDX-License-Identifier: Apache-2.0
// Where every value of a graph stands in memory: views resolved to what they are a view of, intermediate values in an
// arena, results in the caller's tensors where that is possible.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tensor/graph.h"

namespace nibble {

/// A value as part of the value that has the memory (itself unless an OpDef::view made it).
struct View {
  int32_t root = -1;
  ptrdiff_t offset = 0;  ///< bytes from the root's start
  Shape strides;
};

/// The memory of a root.
struct Place {
  enum Kind : uint8_t { none, constant, input, output, arena };
  Kind kind = none;
  size_t index = 0;   ///< of the graph's input or output
  size_t offset = 0;  ///< in the arena
};

struct Layout {
  std::vector<View> views;     ///< per value
  std::vector<Place> places;   ///< per value; only roots have one
  std::vector<bool> in_place;  ///< per graph output: its value is made right in the caller's tensor
  size_t arena_bytes = 0;
};

/// Throws Error naming the node when a view can't be taken.
Layout plan_layout(const Graph& graph);

}  // namespace nibble
