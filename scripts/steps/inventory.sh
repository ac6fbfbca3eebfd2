#!/usr/bin/env bash
# Turns Terraform's outputs into the inventory that every later step reads.
set -euo pipefail
# shellcheck source=../lib/step.sh
. "$(dirname "$(readlink -f "$0")")/../lib/step.sh"

need outputs.json apply
exec tf-to-inventory "$out/outputs.json" --output "$out/inventory.json" --report "$reports/inventory.json"
