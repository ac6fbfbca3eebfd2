#!/usr/bin/env bash
# Plans the environment: writes tfplan and plan.json. Changes nothing but the state's lock and, the first time, the
# bucket that will hold the state.

# shellcheck source=scripts/lib/step.sh
. "$(dirname "$0")/../lib/step.sh"

"$repository/terraform/scripts/init.sh" "$environment"
exec "$repository/terraform/scripts/plan.sh" "$environment" --out "$out"
