#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that building and testing need and those named, if any is missing:  scripts/setup.sh [package ...]
set -euo pipefail

packages=(g++ cmake ninja-build ccache pkg-config binutils git ca-certificates python3 python3-pip
  libdnnl-dev ocl-icd-opencl-dev libxbyak-dev libgtest-dev libbenchmark-dev libzydis-dev
  nlohmann-json3-dev libcli11-dev libpcre2-dev libutf8proc-dev)

packages+=("$@")

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then exit 0; fi

if ! command -v apt-get >/dev/null; then
  echo "setup: this needs a Debian-like system (apt-get); install yourself: ${missing[*]}" >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "setup: run as root, or install: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "setup: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq >&2
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
