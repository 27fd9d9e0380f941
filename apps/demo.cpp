// SPDX-License-Identifier: Apache-2.0
// main() of the per-model demo binaries; CMake builds it once per line of arch_list.inc.
#include "apps/cli.h"

int main(int argc, char** argv) { return nibble::cli::run_demo(NIBBLE_DEMO_ARCH, argc, argv); }
