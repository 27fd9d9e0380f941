// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu_limits.h"

#include <sched.h>

#include <cmath>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

namespace nibble {

namespace {

std::string first_line(const std::string& path) {
  std::string line;
  std::ifstream in(path);
  std::getline(in, line);
  return line;
}

/// Quota over period in CPUs, 0 when there is none. An unreadable or odd file is no quota.
double quota_of(const std::string& quota_text, const std::string& period_text) {
  std::istringstream quota_in(quota_text);
  std::istringstream period_in(period_text);
  double quota = 0;
  double period = 0;
  if (!(quota_in >> quota) || !(period_in >> period) || quota <= 0 || period <= 0) return 0;
  return quota / period;
}

double directory_quota(const std::string& directory, bool unified) {
  if (!unified)
    return quota_of(first_line(directory + "/cpu.cfs_quota_us"), first_line(directory + "/cpu.cfs_period_us"));
  std::istringstream in(first_line(directory + "/cpu.max"));
  std::string quota;
  std::string period;
  in >> quota >> period;
  return quota_of(quota, period);
}

void tighten(double& limit, double quota) {
  if (quota > 0 && (limit == 0 || quota < limit)) limit = quota;
}

}  // namespace

std::vector<int> allowed_cpus() {
  for (int bits = 1024; bits <= (1 << 20); bits *= 2) {  // the kernel refuses a mask smaller than its own
    cpu_set_t* set = CPU_ALLOC(bits);
    if (!set) break;
    const size_t set_bytes = CPU_ALLOC_SIZE(bits);
    std::vector<int> cpus;
    const bool known = sched_getaffinity(0, set_bytes, set) == 0;
    for (int i = 0; known && i < bits; ++i) {
      if (CPU_ISSET_S(i, set_bytes, set)) cpus.push_back(i);
    }
    CPU_FREE(set);
    if (known) return cpus;
  }
  std::vector<int> cpus;
  for (int i = 0; i < static_cast<int>(std::thread::hardware_concurrency()); ++i) cpus.push_back(i);
  return cpus;
}

int count_cores(const std::string& sys_cpu, std::span<const int> cpus) {
  std::set<std::string> cores;
  for (int cpu : cpus) {
    const std::string topology = sys_cpu + "/cpu" + std::to_string(cpu) + "/topology/";
    const std::string core = first_line(topology + "core_id");
    const std::string package = first_line(topology + "physical_package_id");
    const std::string die = first_line(topology + "die_id");
    cores.insert(core.empty() ? "cpu" + std::to_string(cpu) : package + "/" + die + "/" + core);
  }
  return static_cast<int>(cores.size());
}

int cgroup_cpu_limit(const std::string& membership, const std::string& root) {
  double limit = 0;
  std::ifstream in(membership);
  for (std::string line; std::getline(in, line);) {  // hierarchy-id:controllers:path
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool unified = controllers.empty();
    if (!unified && ("," + controllers + ",").find(",cpu,") == std::string::npos) continue;
    std::string path = line.substr(second + 1);
    // In a container the path may be the host's and not exist here; the mount's root is then the container's own group.
    for (;;) {
      while (!path.empty() && path.back() == '/') path.pop_back();
      if (unified) {
        tighten(limit, directory_quota(root + path, true));
        tighten(limit, directory_quota(root + "/unified" + path, true));
      } else {
        tighten(limit, directory_quota(root + "/" + controllers + path, false));
        tighten(limit, directory_quota(root + "/cpu" + path, false));
      }
      if (path.empty()) break;
      path.erase(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
    }
  }
  return static_cast<int>(std::ceil(limit));
}

}  // namespace nibble
