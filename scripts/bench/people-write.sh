#!/usr/bin/env bash
# What people write to wait for cloud-init, for scripts/bench/wait-for-cloud-init: the instance IDs are the arguments, and a
# line `ID SECONDS` is printed when each host is judged.
set -euo pipefail

aws ec2 wait instance-status-ok --instance-ids "$@"
for id in "$@"; do
  until command=$(aws ssm send-command --instance-ids "$id" --document-name AWS-RunShellScript \
    --parameters 'commands=["cloud-init status --wait"]' --query Command.CommandId --output text 2>/dev/null); do
    sleep 5
  done
  while :; do
    status=$(aws ssm get-command-invocation --command-id "$command" --instance-id "$id" --query Status --output text \
      2>/dev/null || echo Pending)
    case $status in Success | Failed | TimedOut | Cancelled) break ;; esac
    sleep 5
  done
  echo "$id $(date +%s.%N)"
done
