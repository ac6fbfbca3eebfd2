#!/usr/bin/env bash
# Shows the journal of a unit on hosts, through Systems Manager.
#
#   scripts/show-logs.sh [--env ENVIRONMENT | --inventory FILE] [--lines N] [--follow] UNIT [PATTERN]
#
#   scripts/show-logs.sh --follow asterisk 'sip:!sip-2'
#
# PATTERN is Ansible's (all); the inventory is that of the environment's newest run (dev). --lines: how many of each host (50); of their
# text the last 500,000 characters are shown.
# --follow asks again every few seconds for what came since, until Ctrl-C. Exit statuses: docs/exit-codes.md.
set -euo pipefail
# shellcheck source=lib/play.sh
. "$(dirname "$(readlink -f "$0")")/lib/play.sh"

shared_arguments "$@"
set -- "${rest[@]}"
lines=50 follow=no unit='' pattern=''
while [ $# -gt 0 ]; do
  case $1 in
    --lines) lines=${2:-} && shift ;;
    --follow) follow=yes ;;
    -*) fail "$usage" "unknown argument \`$1\`" "see $0 --help" ;;
    *) if [ -z "$unit" ]; then unit=$1; elif [ -z "$pattern" ]; then pattern=$1; else fail "$usage" "one UNIT and one PATTERN, please" "see $0 --help"; fi ;;
  esac
  shift || fail "$usage" "--lines needs a value" "see $0 --help"
done
[[ $lines =~ ^[1-9][0-9]*$ ]] || fail "$usage" "--lines is a number, not \`$lines\`" "see $0 --help"
[ -n "$unit" ] || fail "$usage" "UNIT is missing" "for example: $0 asterisk; \`scripts/ansible-run.sh all -- systemctl list-units\` shows what there is"
find_inventory

# Where each host was read up to is remembered here; a host that is new to it begins with its last lines. A journal
# without entries may be that of a unit that is quiet, or of none.
# shellcheck disable=SC2016
tasks='[
  {"name": "Read the journal", "changed_when": false, "register": "said", "failed_when": "said.rc != 0 and said.stderr", "ansible.builtin.command": {"argv": ["journalctl",
    "--no-pager", "--output=short-iso", "--show-cursor", "--unit={{ unit }}",
    "{{ \"--after-cursor=\" ~ cursors[inventory_hostname] if inventory_hostname in cursors else \"--lines=\" ~ lines }}"]}},
  {"name": "Look for the unit", "changed_when": false, "register": "unit_is",
    "when": "said.stdout_lines[:1] == [\"-- No entries --\"] and inventory_hostname not in cursors",
    "ansible.builtin.command": {"argv": ["systemctl", "show", "--property=LoadState", "--value", "--", "{{ unit }}"]}},
  {"name": "Name a unit that is not there", "ansible.builtin.fail": {"msg": "there is no unit {{ unit }}, and the journal has no entries of it"},
    "when": "unit_is is not skipped and unit_is.stdout_lines | reject(\"in\", [\"\", \"not-found\"]) | list == []"},
  {"name": "Say it", "ansible.builtin.set_stats": {"per_host": true, "data": {"said": "={{ said.stdout[-500000:] }}",
    "cut": "{{ [said.stdout | length - 500000, 0] | max }}"}}}]'
cursors='{}'
while :; do
  status=0
  vars=$(jq -n --arg unit "$unit" --arg lines "$lines" --argjson cursors "$cursors" '{$unit, $lines, $cursors}')
  ask "${pattern:-all}" "$tasks" --extra-vars "$vars" || status=$?
  [ -s "$work/report.json" ] || exit "$status"
  jq -r --arg follow "$follow" --arg unit "$unit" '.subjects[] | .name as $host | .data as $data | $data.custom_stats as $said
    | "all of it is on the host: scripts/ssh-to-host.sh \($host), journalctl --unit=\($unit)" as $all
    | if .outcome != "success" then "\($host) | \(.outcome): \(.detail)", ($data.failed_tasks[]?.message // empty)
      elif $data.custom_stats_left_out then "\($host) | [\($data.custom_stats_left_out.said) characters are left out; \($all)]"
      else (select($said.cut | tonumber > 0) | "\($host) | [the first \($said.cut) characters are cut; \($all)]"), ($said.said[1:] | split("\n")[]
        | select(. == "" or startswith("-- cursor: ") or ($follow == "yes" and . == "-- No entries --") | not) | "\($host) | \(.)") end' "$work/report.json"
  cursors=$(jq --argjson known "$cursors" '[.subjects[] | .name as $host | .data.custom_stats.said // "" | split("\n")[]
    | select(startswith("-- cursor: ")) | {($host): .[11:]}] | $known + (add // {})' "$work/report.json")
  [ "$follow" = yes ] && [ "$status" = 0 ] || exit "$status"
  sleep 2
done
