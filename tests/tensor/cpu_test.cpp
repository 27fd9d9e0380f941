// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tensor/check.h"
#include "tensor/cpu_limits.h"

namespace nibble {
namespace {

class FakeSystem {
 public:
  FakeSystem() : root_(testing::TempDir() + "nibble_cpu_" + std::to_string(getpid())) {}
  ~FakeSystem() { std::filesystem::remove_all(root_); }
  std::string write(const std::string& path, const std::string& text) const {
    const std::filesystem::path full = root_ + "/" + path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << text << '\n';
    return full;
  }
  const std::string& root() const { return root_; }

 private:
  std::string root_;
};

TEST(Cpu, NamesRoundTrip) {
  for (Isa isa : all_isas()) EXPECT_EQ(parse_isa(name(isa)), isa);
  EXPECT_THROW(parse_isa("sse9"), Error);
  try {
    parse_isa("AVX2");
    FAIL() << "names are lower case";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("avx512vnni"), std::string::npos) << e.what();
  }
}

TEST(Cpu, CompilerAgreesOnAvx2) {
  EXPECT_TRUE(supported(Isa::generic));
  EXPECT_EQ(supported(Isa::avx2), __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                                      __builtin_cpu_supports("f16c"));
  EXPECT_EQ(supported(Isa::avx512vnni), __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
                                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"));
  EXPECT_TRUE(supported(Isa::avx512vnni) || !supported(Isa::amxint8));
}

TEST(Cpu, CapBoundsWhatIsUsable) {
  for (Isa isa : all_isas()) {
    const bool below = isa <= max_isa();
    EXPECT_TRUE(below || !usable(isa)) << name(isa);  // an emulator may make unsupported ones usable
    EXPECT_TRUE(usable(isa) || !below || !supported(isa)) << name(isa);
  }
  if (const char* cap = std::getenv("NIBBLE_MAX_ISA")) {
    EXPECT_EQ(name(max_isa()), cap);
  }
}

TEST(Cpu, CacheSizesAreSane) {
  const CacheSizes sizes = cache_sizes();
  EXPECT_GE(sizes.l1d, size_t{8} << 10);
  EXPECT_LE(sizes.l1d, size_t{1} << 20);
  EXPECT_GE(sizes.l2, sizes.l1d);
  EXPECT_GE(sizes.l3, size_t{1} << 20);
}

TEST(Cpu, HasAName) { EXPECT_FALSE(cpu_name().empty()); }

TEST(Cpu, DefaultThreadsObeyTheEnvironment) {
  const char* old = std::getenv("NIBBLE_THREADS");
  const std::string saved = old ? old : "";
  setenv("NIBBLE_THREADS", "7", 1);
  EXPECT_EQ(default_threads(), 7);
  for (const char* bad : {"0", "-1", "x", "3x", "99999999999"}) {
    setenv("NIBBLE_THREADS", bad, 1);
    EXPECT_THROW(default_threads(), Error) << bad;
  }
  unsetenv("NIBBLE_THREADS");
  EXPECT_GE(default_threads(), 1);
  EXPECT_LE(default_threads(), static_cast<int>(allowed_cpus().size()));
  if (old) setenv("NIBBLE_THREADS", saved.c_str(), 1);
}

TEST(Cpu, CountsHyperThreadsOnce) {
  const FakeSystem system;
  for (int cpu = 0; cpu < 8; ++cpu) {  // two packages of two cores of two threads
    const std::string topology = "cpu" + std::to_string(cpu) + "/topology/";
    system.write(topology + "core_id", std::to_string(cpu % 2));
    system.write(topology + "physical_package_id", std::to_string(cpu / 2 % 2));
  }
  EXPECT_EQ(count_cores(system.root(), std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7}), 4);
  EXPECT_EQ(count_cores(system.root(), std::vector<int>{0, 4}), 1);
  EXPECT_EQ(count_cores(system.root(), std::vector<int>{0, 20, 21}), 3) << "CPUs that are not described";
}

TEST(Cpu, QuotaOfCgroupV2IsTheTightestOnThePath) {
  const FakeSystem system;
  const std::string membership = system.write("membership", "0::/a/b");
  EXPECT_EQ(cgroup_cpu_limit(membership, system.root()), 0);
  system.write("a/b/cpu.max", "max 100000");
  EXPECT_EQ(cgroup_cpu_limit(membership, system.root()), 0);
  system.write("a/cpu.max", "250000 100000");
  EXPECT_EQ(cgroup_cpu_limit(membership, system.root()), 3) << "2.5 CPUs";
  system.write("a/b/cpu.max", "400000 100000");
  EXPECT_EQ(cgroup_cpu_limit(membership, system.root()), 3);
  system.write("cpu.max", "50000 100000");
  EXPECT_EQ(cgroup_cpu_limit(membership, system.root()), 1) << "the container's own group is the mount's root";
}

TEST(Cpu, QuotaOfCgroupV1) {
  const FakeSystem system;
  const std::string membership = system.write("membership", "4:memory:/x\n3:cpu,cpuacct:/x\n0::/");
  system.write("cpu,cpuacct/x/cpu.cfs_quota_us", "-1");
  system.write("cpu,cpuacct/x/cpu.cfs_period_us", "100000");
  EXPECT_EQ(cgroup_cpu_limit(membership, system.root()), 0);
  system.write("cpu,cpuacct/x/cpu.cfs_quota_us", "200000");
  EXPECT_EQ(cgroup_cpu_limit(membership, system.root()), 2);
  EXPECT_EQ(cgroup_cpu_limit(system.root() + "/nothing", system.root()), 0);
}

}  // namespace
}  // namespace nibble
