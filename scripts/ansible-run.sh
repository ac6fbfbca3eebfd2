#!/usr/bin/env bash
# Runs one command or one Ansible module on hosts through Systems Manager, and shows what each said.
#
#   scripts/ansible-run.sh [--env ENVIRONMENT | --inventory FILE] PATTERN -- COMMAND…
#   scripts/ansible-run.sh [--env ENVIRONMENT | --inventory FILE] PATTERN -m MODULE [-a ARGUMENTS] [FLAG…]
#
#   scripts/ansible-run.sh all -- uptime
#   scripts/ansible-run.sh --env staging 'sip:!sip-2' -m ansible.builtin.service -a 'name=asterisk state=restarted' --check
#
# PATTERN is Ansible's; the inventory is that of the environment's newest run (dev). A COMMAND goes through the host's shell.
# FLAGs are ssm-run-playbook's, and so are the exit statuses: docs/exit-codes.md.
set -euo pipefail
# shellcheck source=lib/play.sh
. "$(dirname "$(readlink -f "$0")")/lib/play.sh"

command=''
for ((at = 1; at <= $#; at++)); do
  # What is behind -- is the host's, also if it looks like a flag.
  [ "${!at}" != -- ] || { command="${*:at+1}" && set -- "${@:1:at-1}"; }
done
shared_arguments "$@"
set -- "${rest[@]}"
pattern=${1:-}
[ -n "$pattern" ] && [ "${pattern#-}" = "$pattern" ] || fail "$usage" "PATTERN is missing" "see $0 --help"
shift
module='' arguments='' flags=()
while [ $# -gt 0 ]; do
  case $1 in
    -m) module=${2:-} && shift ;;
    -a) arguments=${2:-} && shift ;;
    *) flags+=("$1") ;;
  esac
  shift || fail "$usage" "the last argument needs a value" "see $0 --help"
done
if [ -n "$command" ]; then
  [ -z "$module" ] || fail "$usage" "-m MODULE and -- COMMAND exclude each other" "see $0 --help"
  # Braces are the command's own, as in docker's --format.
  module=ansible.builtin.shell arguments="{% raw %}$command{% endraw %}"
fi
[ -n "$module" ] || fail "$usage" "nothing to run on \`$pattern\`" "name it: $0 $pattern -- COMMAND, or -m MODULE; see $0 --help"
find_inventory

tasks=$(jq -n --arg action "$module" --arg arguments "$arguments" '[
  {name: $action, ($action): (if $arguments == "" then null else $arguments end), register: "said"},
  {name: "Say it", "ansible.builtin.set_stats": {per_host: true, data: {said: "{{ said.stdout | default(said | to_nice_json) }}"}}}]')
status=0
ask "$pattern" "$tasks" "${flags[@]}" || status=$?
[ ! -s "$work/report.json" ] || jq -r '.subjects[] | "\(.name) | \(.outcome)\(if .outcome == "success" then "" else ": " + .detail end)",
  (.data.failed_tasks[]?.message // empty), (.data.custom_stats.said // empty)' "$work/report.json"
exit "$status"
