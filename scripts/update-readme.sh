#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Writes the table of architectures into README.md, as the built command lists them.
#   scripts/update-readme.sh [NIBBLE]
set -euo pipefail
cd "$(dirname "$0")/.."
nibble=${1:-build/release/nibble}
table=$(mktemp)
trap 'rm -f "$table" "$table.new"' EXIT
"$nibble" --list --markdown > "$table"
awk -v table="$table" '
  /^<!-- end of the list -->$/ { inside = 0 }
  !inside { print }
  /^<!-- nibble --list --markdown -->$/ { inside = 1; while ((getline line < table) > 0) print line }
' README.md > "$table.new"
cat "$table.new" > README.md
