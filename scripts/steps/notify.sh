#!/usr/bin/env bash
# Tells people how the run ended, from the reports of its steps: to Slack when NOTIFY_SLACK_WEBHOOK, or
# NOTIFY_SLACK_TOKEN and NOTIFY_SLACK_CHANNEL, are set; else it shows the message and sends nothing.
set -euo pipefail
# shellcheck source=../lib/step.sh
. "$(dirname "$(readlink -f "$0")")/../lib/step.sh"

arguments=(--report "$reports" --write-report "$out/notify.json")
[ -n "${NOTIFY_SLACK_WEBHOOK:-}${NOTIFY_SLACK_TOKEN:-}" ] || arguments+=(--dry-run)
exec notify-slack "${arguments[@]}"
