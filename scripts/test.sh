#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds everything and runs all tests:  scripts/test.sh [ctest options]
# NIBBLE_WERROR=ON makes warnings errors, as CI does.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh
cmake -S . -B build/test -G Ninja -DCMAKE_BUILD_TYPE=Release -DNIBBLE_WERROR="${NIBBLE_WERROR:-OFF}" >/dev/null
echo "building (some minutes the first time) ..."
log=build/test/build.log
cmake --build build/test >"$log" 2>&1 || { tail -n 40 "$log"; exit 1; }
tail -n 1 "$log"
ctest --test-dir build/test --output-on-failure "$@"
