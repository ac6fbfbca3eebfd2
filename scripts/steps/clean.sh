#!/usr/bin/env bash
# Lists what carries this environment's tags but belongs to no Terraform state. Deletes nothing.
set -euo pipefail
# shellcheck source=../lib/step.sh
. "$(dirname "$(readlink -f "$0")")/../lib/step.sh"

need outputs.json apply
project=$(jq -er '.inventory.value.project' "$out/outputs.json")
region=$(jq -er '.inventory.value.region' "$out/outputs.json")
# The state goes through a private file that is gone with this script.
private=$(mktemp -d)
trap 'rm -rf "$private"' EXIT
"$repository/terraform/scripts/init.sh" "$environment" --backend-config "$out/backend.hcl"
env -u TF_DATA_DIR terraform -chdir="$repository/terraform/environments/$environment" state pull >"$private/$environment.tfstate"
cleanup-orphans --project "$project" --environment "$environment" --region "$region" --state "$private/$environment.tfstate" \
  --report "$reports/clean.json"
