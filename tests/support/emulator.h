// SPDX-License-Identifier: Apache-2.0
// Runs generated code for instruction sets that this CPU lacks. A SIGILL handler decodes the refused instruction and
// interprets from there until the generated function returns, on a software copy of the zmm, mask and tile registers;
// memory and general registers are the real ones, so guard pages and results count. Only what our emitters use is
// known: anything else stops the process with the instruction's name.
#pragma once

namespace nibble::emulator {

/// Installs the handler and makes every instruction set usable (allow_unsupported()). Calling again is harmless.
void install();
/// Instructions interpreted so far by all threads: a test can see that emulated code really ran.
long long executed();
/// Threads that have configured tiles (AMX) and not released them.
int threads_with_tiles();

}  // namespace nibble::emulator
