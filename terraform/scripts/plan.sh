#!/usr/bin/env bash
# Plans one environment into DIR: tfplan (what apply.sh applies), plan.json (what people and gates read), backend.hcl.
# usage: plan.sh ENVIRONMENT [--out DIR] [-- ARGUMENTS OF TERRAFORM PLAN]
# Without --out a new folder .deploy/<environment>/<start time>, with `latest` linked to it.
set -euo pipefail
scripts=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=common.sh
source "$scripts/common.sh"

usage='usage: plan.sh ENVIRONMENT [--out DIR] [-- ARGUMENTS OF TERRAFORM PLAN]'
if [[ $# -eq 0 ]]; then fail 2 'an environment is missing' "$usage"; fi
environment_of "$1"
shift
if [[ ${1:-} == --out && -n ${2:-} ]]; then wanted=$2 && shift 2; fi
if [[ $# -gt 0 && $1 != -- ]]; then fail 2 "unknown argument \`$1\`" "$usage"; fi
shift "$(($# > 0 ? 1 : 0))"

"$scripts/init.sh" "$environment"
run_folder "${wanted:-}"
rm -f "$out"/{tfplan,plan.json,outputs.json}
cp "$root/.terraform/backend.hcl" "$out/backend.hcl"

# Status 0: nothing to change; 2: changes; anything else: no plan.
status=0
terraform_in "$root" plan -detailed-exitcode -lock-timeout=60s -out="$out/tfplan" "$@" || status=$?
case $status in
  0) changes='nothing to change' ;;
  2) changes='changes to apply' ;;
  *)
    # Terraform writes a file of a failed plan as well, which nobody can apply.
    rm -f "$out/tfplan"
    fail_terraform "cannot plan $environment"
    ;;
esac
chmod 600 "$out/tfplan"
terraform_in "$root" show -json "$out/tfplan" >"$out/plan.json.new"
mv "$out/plan.json.new" "$out/plan.json"
echo "$environment: $changes; the plan is $out/tfplan" >&2
