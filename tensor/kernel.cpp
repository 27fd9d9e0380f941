// SPDX-License-Identifier: Apache-2.0
#include "tensor/kernel.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <vector>

namespace nibble {

namespace {

struct Registry {
  std::mutex mutex;
  // Per op every version of its list: a span that was handed out stays valid when a kernel is added.
  std::map<std::string, std::vector<std::unique_ptr<const std::vector<Kernel>>>, std::less<>> versions;
};

Registry& registry() {
  static Registry instance;
  return instance;
}

}  // namespace

void register_kernel(const Kernel& kernel) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  for (const auto& [op, versions] : r.versions) {
    if (std::ranges::find(*versions.back(), kernel.name, &Kernel::name) != versions.back()->end()) return;
  }
  auto& versions = r.versions[std::string(kernel.op)];
  auto list = versions.empty() ? std::vector<Kernel>() : *versions.back();
  list.push_back(kernel);
  versions.push_back(std::make_unique<const std::vector<Kernel>>(std::move(list)));
}

std::span<const Kernel> kernels_for(std::string_view op) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  const auto found = r.versions.find(op);
  if (found == r.versions.end()) return {};
  return *found->second.back();
}

}  // namespace nibble
