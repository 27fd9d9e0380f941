// SPDX-License-Identifier: Apache-2.0
// The `nibble` command.
#include "apps/cli.h"

int main(int argc, char** argv) { return nibble::cli::run(argc, argv); }
