#!/usr/bin/env bash
# Turns DIR/outputs.json into DIR/inventory.json; a thin wrapper of tf-to-inventory, which says what is wrong with it.
# usage: output-to-inventory.sh [DIR] [ARGUMENTS OF tf-to-inventory]        (without DIR: .deploy/dev/latest)
set -euo pipefail
# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

folder=${1:-$repository_root/.deploy/dev/latest}
if [[ $# -gt 0 ]]; then shift; fi
if ! command -v tf-to-inventory >/dev/null; then
  fail 2 'tf-to-inventory is not on PATH' 'cargo build -p tf-to-inventory, and add target/debug to PATH'
fi
exec tf-to-inventory "$folder/outputs.json" --output "$folder/inventory.json" --output-format json "$@"
