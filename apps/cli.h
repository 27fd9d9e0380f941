// SPDX-License-Identifier: Apache-2.0
// Command line shared by `nibble` and the demo binaries. Only apps/ prints and decides exit codes.
#pragma once

namespace nibble::cli {

/// `nibble <subcommand> ...`. Exit code 0; 1 for an error (one line on stderr); 2 for bad usage; 130 after Ctrl-C.
int run(int argc, char** argv);
/// `nibble-<arch> ...`: the `run` subcommand for files of one architecture.
int run_demo(const char* arch, int argc, char** argv);

}  // namespace nibble::cli
