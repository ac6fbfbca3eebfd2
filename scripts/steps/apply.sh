#!/usr/bin/env bash
# Applies exactly the plan that scripts/steps/plan.sh wrote; writes outputs.json.

# shellcheck source=scripts/lib/step.sh
. "$(dirname "$0")/../lib/step.sh"

need tfplan plan
"$repository/terraform/scripts/init.sh" "$environment"
exec "$repository/terraform/scripts/apply.sh" "$environment" --out "$out"
