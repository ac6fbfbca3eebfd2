#!/usr/bin/env bash
# Applies exactly the plan that scripts/steps/plan.sh wrote; writes outputs.json.
set -euo pipefail
# shellcheck source=../lib/step.sh
. "$(dirname "$(readlink -f "$0")")/../lib/step.sh"

need tfplan plan
status=0 TERRAFORM_WHY=$(mktemp)
export TERRAFORM_WHY
trap 'rm -f "$TERRAFORM_WHY"' EXIT
stoppable "$repository/terraform/scripts/apply.sh" "$environment" --out "$out" || status=$?
title='the plan was not applied, or only in part' why=$(cat "$TERRAFORM_WHY")
case $why in
  # Known before Terraform changes anything.
  *'the lock of its state'* | *'no longer fits the state'* | 'no plan in '* | *"Terraform's provider is missing"*) title="nothing was applied: $why" ;;
esac
[ "$status" != 0 ] || title='exactly the plan was applied'
step_report apply "$status" "$title"
exit "$status"
