#!/usr/bin/env bash
# Plans the environment: writes tfplan and plan.json. Changes nothing but the state's lock and, the first time, the
# bucket that will hold the state.
set -euo pipefail
# shellcheck source=../lib/step.sh
. "$(dirname "$(readlink -f "$0")")/../lib/step.sh"

status=0 changes=$(mktemp) TERRAFORM_WHY=$(mktemp)
export TERRAFORM_WHY
trap 'rm -f "$changes" "$TERRAFORM_WHY"' EXIT
stoppable "$repository/terraform/scripts/plan.sh" "$environment" --out "$out" || status=$?
title="no plan was made$(sed 's/^/: /' "$TERRAFORM_WHY")"
if [ "$status" = 0 ]; then
  # Replacing counts as one to create and one to destroy, as Terraform itself counts.
  jq -c '[.resource_changes[]? | select(.mode == "managed" and .change.actions != ["no-op"])
    | {kind: "change", name: .address, outcome: "success", detail: (.change.actions | join(" and "))}]' "$out/plan.json" >"$changes"
  title=$(jq -r '[.[].detail] | "\(map(select(test("create"))) | length) to create, \(map(select(test("update"))) | length) to change, \(
    map(select(test("delete"))) | length) to destroy"' "$changes")
  say "plan: $title"
fi
step_report plan "$status" "$title" "$changes"
exit "$status"
