// SPDX-License-Identifier: Apache-2.0
#include "tensor/cpu.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "tensor/check.h"
#include "tensor/cpu_limits.h"

namespace nibble {

namespace {

constexpr std::array isas = {Isa::generic, Isa::avx2, Isa::avxvnni, Isa::avx512vnni, Isa::amxint8};

struct Cpuid {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

/// All zero when the CPU has no such leaf.
Cpuid cpuid(uint32_t leaf, uint32_t subleaf = 0) {
  Cpuid r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

constexpr bool bit(uint32_t word, int index) { return (word >> index) & 1u; }

/// The register state the operating system saves (XCR0), 0 when it doesn't use XSAVE.
uint64_t saved_state() {
  if (!bit(cpuid(1).ecx, 27)) return 0;
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

struct Features {
  bool avx2 = false, fma = false, f16c = false, avx_vnni = false;
  bool avx512f = false, avx512bw = false, avx512dq = false, avx512vl = false, avx512_vnni = false;
  bool amx_tile = false, amx_int8 = false;
};

// Linux gives tile data, 8 KiB a thread, only to processes that ask for it.
bool tiles_permitted() {
  constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

Features detect() {
  const Cpuid one = cpuid(1);
  const Cpuid seven = cpuid(7, 0);
  const uint32_t seven_one = seven.eax >= 1 ? cpuid(7, 1).eax : 0;  // eax of subleaf 0: the last subleaf
  const uint64_t state = saved_state();
  const bool ymm = (state & 0x06) == 0x06;
  const bool zmm = (state & 0xe6) == 0xe6;
  Features f;
  f.avx2 = ymm && bit(one.ecx, 28) && bit(seven.ebx, 5);
  f.fma = ymm && bit(one.ecx, 12);
  f.f16c = ymm && bit(one.ecx, 29);
  f.avx_vnni = ymm && bit(seven_one, 4);
  f.avx512f = zmm && bit(seven.ebx, 16);
  f.avx512dq = zmm && bit(seven.ebx, 17);
  f.avx512bw = zmm && bit(seven.ebx, 30);
  f.avx512vl = zmm && bit(seven.ebx, 31);
  f.avx512_vnni = zmm && bit(seven.ecx, 11);
  const bool tiles = (state & 0x60000) == 0x60000 && bit(seven.edx, 24) && tiles_permitted();
  f.amx_tile = tiles;
  f.amx_int8 = tiles && bit(seven.edx, 25);
  return f;
}

const Features& features() {
  static const Features f = detect();
  return f;
}

std::atomic<bool> unsupported_allowed = false;

std::string brand() {
  if (__get_cpuid_max(0x80000000u, nullptr) < 0x80000004u) return "x86-64";
  std::array<char, 49> text{};
  for (uint32_t i = 0; i < 3; ++i) {
    const Cpuid part = cpuid(0x80000002u + i);
    std::memcpy(text.data() + 16 * i, &part, 16);
  }
  std::string s = text.data();
  while (!s.empty() && s.back() == ' ') s.pop_back();
  s.erase(0, s.find_first_not_of(' '));
  return s.empty() ? "x86-64" : s;
}

}  // namespace

std::string_view name(Isa isa) {
  switch (isa) {
    case Isa::generic: return "generic";
    case Isa::avx2: return "avx2";
    case Isa::avxvnni: return "avxvnni";
    case Isa::avx512vnni: return "avx512vnni";
    case Isa::amxint8: return "amxint8";
  }
  return "?";
}

Isa parse_isa(std::string_view text) {
  std::string known;
  for (Isa isa : isas) {
    if (name(isa) == text) return isa;
    known += (known.empty() ? "" : ", ") + std::string(name(isa));
  }
  fail("instruction set \"", text, "\": expected one of ", known);
}

std::span<const Isa> all_isas() { return isas; }

bool supported(Isa isa) {
  const Features& f = features();
  const bool avx2 = f.avx2 && f.fma && f.f16c;
  const bool avx512vnni = avx2 && f.avx512f && f.avx512bw && f.avx512dq && f.avx512vl && f.avx512_vnni;
  switch (isa) {
    case Isa::generic: return true;
    case Isa::avx2: return avx2;
    case Isa::avxvnni: return avx2 && f.avx_vnni;
    case Isa::avx512vnni: return avx512vnni;
    case Isa::amxint8: return avx512vnni && f.amx_tile && f.amx_int8;
  }
  return false;
}

Isa max_isa() {
  static const Isa cap = [] {
    if (const char* text = std::getenv("NIBBLE_MAX_ISA"); text && *text) {
      try {
        return parse_isa(text);
      } catch (const Error& e) {
        fail("NIBBLE_MAX_ISA: ", e.what());
      }
    }
    Isa best = Isa::generic;
    for (Isa isa : isas) {
      if (supported(isa)) best = isa;
    }
    return best;
  }();
  return cap;
}

bool usable(Isa isa) {
  return isa <= max_isa() && (supported(isa) || unsupported_allowed.load(std::memory_order_relaxed));
}

void allow_unsupported() { unsupported_allowed.store(true, std::memory_order_relaxed); }

CacheSizes cache_sizes() {
  CacheSizes sizes{.l1d = size_t{32} << 10, .l2 = size_t{256} << 10, .l3 = size_t{4} << 20};
  // Intel and AMD describe caches in the same form under different leaves; the one a CPU lacks reads as no cache.
  const bool amd = __get_cpuid_max(0x80000000u, nullptr) >= 0x8000001du && bit(cpuid(0x80000001u).ecx, 22);
  const uint32_t leaf = amd ? 0x8000001du : 4;
  for (uint32_t i = 0; i < 16; ++i) {
    const Cpuid c = cpuid(leaf, i);
    const uint32_t type = c.eax & 31;  // 1 data, 2 instructions, 3 both
    if (type == 0) break;
    if (type == 2) continue;
    const uint32_t level = (c.eax >> 5) & 7;
    const size_t bytes = size_t{(c.ebx >> 22) + 1} * (((c.ebx >> 12) & 0x3ff) + 1) * ((c.ebx & 0xfff) + 1) *
                         (size_t{c.ecx} + 1);
    if (level == 1) sizes.l1d = bytes;
    if (level == 2) sizes.l2 = bytes;
    if (level == 3) sizes.l3 = bytes;
  }
  return sizes;
}

std::string cpu_name() {
  const Features& f = features();
  const std::pair<bool, const char*> names[] = {
      {f.avx2, "avx2"},         {f.fma, "fma"},           {f.f16c, "f16c"},
      {f.avx_vnni, "avx_vnni"}, {f.avx512f, "avx512f"},   {f.avx512bw, "avx512bw"},
      {f.avx512dq, "avx512dq"}, {f.avx512vl, "avx512vl"}, {f.avx512_vnni, "avx512_vnni"},
      {f.amx_tile, "amx_tile"}, {f.amx_int8, "amx_int8"}};
  std::string text = brand() + ",";
  for (const auto& [has, feature] : names) {
    if (has) text += std::string(" ") + feature;
  }
  if (text.back() == ',') text.pop_back();
  return text;
}

int default_threads() {
  if (const char* text = std::getenv("NIBBLE_THREADS"); text && *text) {
    int threads = 0;
    const char* end = text + std::strlen(text);
    const auto [stop, error] = std::from_chars(text, end, threads);
    NIBBLE_CHECK(error == std::errc() && stop == end && threads >= 1 && threads <= 4096,
                 "NIBBLE_THREADS: expected a number from 1 to 4096, found \"", text, "\"");
    return threads;
  }
  int threads = count_cores("/sys/devices/system/cpu", allowed_cpus());
  const int quota = cgroup_cpu_limit("/proc/self/cgroup", "/sys/fs/cgroup");
  if (quota > 0) threads = std::min(threads, quota);
  return std::max(threads, 1);
}

}  // namespace nibble
