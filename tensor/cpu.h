// SPDX-License-Identifier: Apache-2.0
// What the processor can do, asked of cpuid feature by feature, never of its name.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace nibble {

/// Instruction sets that kernels are written for, weakest first. `generic` is plain C++ for any x86-64.
enum class Isa : unsigned char { generic, avx2, avxvnni, avx512vnni, amxint8 };

std::string_view name(Isa isa);
/// Throws Error listing the valid names.
Isa parse_isa(std::string_view name);
std::span<const Isa> all_isas();

/// True if the CPU and the operating system support it (avx2 means AVX2, FMA and F16C; avx512vnni means F, BW, DQ, VL
/// and VNNI; amxint8 means that with AMX-TILE and AMX-INT8, and that the system lets this process use them: the first
/// question asks it, once).
bool supported(Isa isa);
/// The cap: NIBBLE_MAX_ISA if set (an unknown name throws Error), else the best supported one. Asked once per process.
/// The cap is taken at its word even if the CPU lacks that instruction set: tests run such code under an emulator
/// (tests/support/emulator.h); `usable()` below is the safe question.
Isa max_isa();
/// Kernels of this ISA may be chosen: not above max_isa() and either supported(isa) or allow_unsupported() was called.
bool usable(Isa isa);
/// Tests only: treats unsupported instruction sets as usable (an emulator handles them).
void allow_unsupported();

struct CacheSizes {
  size_t l1d = 0, l2 = 0, l3 = 0;  ///< bytes; per core for l1d and l2, shared for l3
};
/// From cpuid, with safe defaults where it does not say.
CacheSizes cache_sizes();

/// "AMD EPYC ..., avx2 fma f16c ..." for headers and logs only.
std::string cpu_name();

/// Physical cores this process may use: affinity mask and cgroup CPU quota applied, hyper-threads counted once,
/// at least 1. NIBBLE_THREADS overrides it (a bad value throws Error).
int default_threads();

}  // namespace nibble
