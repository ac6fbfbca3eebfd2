#!/usr/bin/env bash
# Waits until every host has booted, its agent is online and cloud-init has finished.
set -euo pipefail
# shellcheck source=../lib/step.sh
. "$(dirname "$(readlink -f "$0")")/../lib/step.sh"

need inventory.json inventory
exec wait-for-cloud-init --inventory "$out/inventory.json" --timeout "${DEPLOY_WAIT_TIMEOUT:-15m}" --report "$reports/wait.json"
