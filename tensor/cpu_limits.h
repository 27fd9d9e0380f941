// SPDX-License-Identifier: Apache-2.0
// How many processors the system lets a process use; paths are parameters so that tests can bring their own system.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace nibble {

/// The CPUs of the process's affinity mask.
std::vector<int> allowed_cpus();

/// Physical cores among the given CPUs, by <sys_cpu>/cpu<i>/topology; a CPU that is not described counts as a core.
int count_cores(const std::string& sys_cpu, std::span<const int> cpus);

/// The tightest CPU quota (in CPUs, rounded up) on the way from the process's cgroup to the root, versions 1 and 2;
/// 0 when there is none. `membership` is /proc/self/cgroup, `root` where the cgroup file systems are mounted.
int cgroup_cpu_limit(const std::string& membership, const std::string& root);

}  // namespace nibble
