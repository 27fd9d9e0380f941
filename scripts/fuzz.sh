#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the fuzz targets (clang, address and undefined behaviour sanitizers) and runs each for a while, as many at a time
# as there are cores:  scripts/fuzz.sh [seconds for each] [target ...]
# FUZZ_SEED=N makes the same inputs again, so that a run can be repeated.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/setup.sh clang-14 libclang-rt-14-dev
seconds="${1:-60}"
[ $# -eq 0 ] || shift
export build=build/fuzz
cmake -S tests/fuzz -B "$build" -G Ninja -DCMAKE_CXX_COMPILER=clang++-14 >/dev/null
echo "building the fuzz targets (some minutes the first time) ..."
log="$build/build.log"
cmake --build "$build" >"$log" 2>&1 || { tail -n 40 "$log"; exit 1; }
python3 tests/fuzz/make_corpus.py "$build/corpus" >/dev/null
if [ $# -gt 0 ]; then targets=("$@"); else mapfile -t targets < <(sed -n 's/^NIBBLE_FUZZ(\(.*\))$/\1/p' tests/fuzz/target_list.inc); fi

# every input is written as a file
if [ -d /dev/shm ] && [ -w /dev/shm ]; then export TMPDIR=/dev/shm; fi

# inputs that reach new code stay in the build folder, and the next run begins with them
fuzz() {
  local found="$build/found/$1" log="$build/$1.log"
  mkdir -p "$found"
  if "$build/fuzz_$1" -seed="${FUZZ_SEED:-0}" -max_total_time="$2" -timeout=20 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
      -artifact_prefix="$build/crash-$1-" "$found" "$build/corpus/$1" >"$log" 2>&1; then
    echo "$1: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs, nothing found"
  else
    tail -n 60 "$log"
    echo "$1: failed; the input is $(ls "$build"/crash-"$1"-* | tail -n 1)"
    return 1
  fi
}
export -f fuzz
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c "fuzz {} $seconds"
