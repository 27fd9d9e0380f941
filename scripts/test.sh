#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds everything and runs all tests:  scripts/test.sh [ctest options]
# NIBBLE_WERROR=ON makes warnings errors, as CI does.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
cmake -S . -B build/test -G Ninja -DCMAKE_BUILD_TYPE=Release -DNIBBLE_WERROR="${NIBBLE_WERROR:-OFF}" >/dev/null
echo "building (some minutes the first time) ..."
cmake --build build/test | tail -n 3
ctest --test-dir build/test --output-on-failure "$@"
