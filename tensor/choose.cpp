// SPDX-License-Identifier: Apache-2.0
#include "tensor/choose.h"

#include "tensor/check.h"

namespace nibble {

namespace {

std::string reason_against(const Kernel& kernel, const Call& call, Isa cap) {
  if (cap == Isa::generic) return "the cap generic means references only";
  if (kernel.isa > cap) return message("needs ", name(kernel.isa), ", the cap is ", name(cap));
  if (!usable(kernel.isa)) return message("this CPU or NIBBLE_MAX_ISA excludes ", name(kernel.isa));
  const char* reason = kernel.rejects ? kernel.rejects(call) : nullptr;
  return reason ? reason : "";
}

}  // namespace

Choice choose_kernel(const Call& call, Isa max_isa) {
  const std::span<const Kernel> kernels = kernels_for(call.node->op->name);
  std::vector<Candidate> candidates;
  size_t best = kernels.size();
  for (size_t i = 0; i < kernels.size(); ++i) {
    Candidate c{.name = kernels[i].name, .reason = reason_against(kernels[i], call, max_isa)};
    if (c.reason.empty()) {
      c.cost = kernels[i].cost ? kernels[i].cost(call) : 0;
      if (best == kernels.size() || c.cost < candidates[best].cost) best = i;
    }
    candidates.push_back(std::move(c));
  }
  Choice choice;
  if (best < kernels.size()) {
    choice.reference = false;
    choice.cost = candidates[best].cost;
    choice.bound = kernels[best].bind(call);
    choice.kernel = kernels[best].name;
    if (kernels[best].cost_basis) choice.cost_basis = message(kernels[best].name, ": ", kernels[best].cost_basis());
    if (!choice.bound.detail.empty()) choice.kernel += ": " + choice.bound.detail;
    candidates.erase(candidates.begin() + static_cast<std::ptrdiff_t>(best));
  } else {
    choice.kernel = "reference";
  }
  choice.others = std::move(candidates);
  return choice;
}

}  // namespace nibble
