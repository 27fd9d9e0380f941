// SPDX-License-Identifier: Apache-2.0
// Weights from their files into memory: read in the order of the file, packed or quantised on all workers.
#pragma once

#include <vector>

#include "models/weight_part.h"
#include "models/weights.h"

namespace nibble::models {

/// A part and where it goes. `out` has room for the panels of `format`, or, for a vector (no format), for its floats.
struct PlacedPart {
  const WeightPart* part;
  const QuantFormat* format;
  std::byte* out;
};

/// Throws Error when a file has changed or cannot be read, or weights are not finite; progress is told by the caller's
/// thread only.
void load_parts(const Checkpoint& checkpoint, std::vector<PlacedPart> parts, ThreadPool& pool,
                const Progress& progress);

}  // namespace nibble::models
