// SPDX-License-Identifier: Apache-2.0
// What this machine can do at most, measured: the denominators of "% of peak".
#pragma once

#include "tensor/cpu.h"

namespace nibble::jit {

/// Bytes a second that `threads` threads read from memory (a buffer far larger than the last-level cache), the best
/// of a few short runs. Takes about a second, most of it the first time, and 256 MB of memory while it runs.
double measure_read_bandwidth(int threads);

/// int8 operations a second (a multiplication and an addition each count) of the instruction set's inner product on
/// registers alone: vpmaddubsw + vpaddw for avx2, tdpbssd for amxint8, else vpdpbusd. Takes 5
/// milliseconds, with several threads 60. Throws Error for generic. The CPU must support `isa`.
double measure_int8_peak(Isa isa, int threads);

/// The same for the whole instruction mix of a prompt kernel of symmetric 4-bit codes, f16 scales and `group` (a
/// multiple of 32): per group and vector of sums the inner products (avx2: eight fit int16, then vpmaddwd), the integer
/// sum's vpaddd and two multiply-adds for the scales. What is loaded or stored lies in registers. Throws Error for
/// amxint8.
double measure_int8_mix_peak(Isa isa, int threads, int group);

/// The same for f32: multiply-adds of the widest registers of `isa`.
double measure_f32_peak(Isa isa, int threads);

}  // namespace nibble::jit
