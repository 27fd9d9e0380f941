// SPDX-License-Identifier: Apache-2.0
// Which kernel runs a node, and why not the others.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tensor/kernel.h"

namespace nibble {

struct Candidate {
  std::string_view name;
  float cost = 0;      ///< estimated ns, where `reason` is empty
  std::string reason;  ///< why it can't run the call
};

struct Choice {
  std::string kernel;  ///< "name: what was bound", or "reference"
  bool reference = true;
  float cost = 0;  ///< estimated ns; 0 for a reference
  std::string cost_basis;  ///< "name: what its costs are computed from", where the kernel says so
  Bound bound;
  std::vector<Candidate> others;
};

/// Binds the cheapest usable kernel; the reference when there is none or the cap is Isa::generic. Throws what bind
/// throws.
Choice choose_kernel(const Call& call, Isa max_isa);

}  // namespace nibble
