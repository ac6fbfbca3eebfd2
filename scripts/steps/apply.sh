#!/usr/bin/env bash
# Applies exactly the plan that scripts/steps/plan.sh wrote; writes outputs.json.
set -euo pipefail
# shellcheck source=../lib/step.sh
. "$(dirname "$(readlink -f "$0")")/../lib/step.sh"

need tfplan plan
status=0
stoppable "$repository/terraform/scripts/apply.sh" "$environment" --out "$out" || status=$?
title='the plan was not applied, or only in part'
[ "$status" != 0 ] || title='exactly the plan was applied'
step_report apply "$status" "$title"
exit "$status"
