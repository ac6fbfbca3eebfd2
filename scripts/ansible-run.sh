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
# ARGUMENTS are k=v or JSON. FLAGs are ssm-run-playbook's, and so are the exit statuses: docs/exit-codes.md. Of each host the
# last 400,000 characters of stdout and 100,000 of stderr are shown.
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
[ -n "$pattern" ] || fail "$usage" "PATTERN is missing" "see $0 --help"
[ "${pattern#-}" = "$pattern" ] || fail "$usage" "PATTERN is missing before \`$pattern\`" "flags go behind it: $0 PATTERN $pattern … -- COMMAND"
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
  # Braces are the command's own, as in docker's --format, and so is what looks like an argument of the module, as chdir=/x.
  module=ansible.builtin.shell arguments=$(jq -n --arg cmd "{% raw %}$command{% endraw %}" '{$cmd}')
fi
[ -n "$module" ] || fail "$usage" "nothing to run on \`$pattern\`" "name it: $0 $pattern -- COMMAND, or -m MODULE; see $0 --help"
find_inventory

case $arguments in
  '{{'* | '{%'* | [!\{]* | '') given=$(jq -n --arg given "$arguments" '$given | if . == "" then null else . end') ;;
  *) given=$(jq . 2>&1 <<<"$arguments") || fail "$usage" "-a begins like JSON and is none: ${given##*$'\n'}" "arguments are k=v, or a JSON object" ;;
esac
tasks=$(jq -n --arg action "$module" --argjson given "$given" '
  # The mark in front keeps Ansible from reading JSON out of a text.
  def last($name; $most): {($name): "={{ (said.\($name) | default(\"\"))[-\($most):] }}",
    "\($name)_cut": "{{ [(said.\($name) | default(\"\") | length) - \($most), 0] | max }}"};
  [{block: [{name: $action, ($action): $given, register: "said"}],
    always: [{name: "Say it", "ansible.builtin.set_stats": {per_host: true, data: (last("stdout"; 400000) + last("stderr"; 100000) + {
      skipped: "{{ said is skipped }}", result: "={{ \"\" if said is failed or said.stdout is defined else said | to_nice_json }}"})}}]}]')
status=0
ask "$pattern" "$tasks" "${flags[@]}" || status=$?
[ ! -s "$work/report.json" ] || jq -r --arg action "$module" '
  def text($name; $cut):
    (select($cut | tonumber > 0) | "[the first \($cut) characters of \($name) are cut; write it to a file there to have all of it]"),
    (.[$name] // "=" | select(. != "=") | .[1:]);
  .subjects[] | .detail as $detail | .data.custom_stats as $said
  | "\(.name) | \(if $said.skipped == true then "skipped: \($action) does not run under --check"
      elif .outcome == "success" then .outcome else "\(.outcome): \($detail)" end)",
    # A message ends with some of stderr, which comes as a whole.
    (.data.failed_tasks[]?.message // empty | split("\n") | (if $said.stderr // "=" != "=" then .[:1] else . end)[]
      | . as $line | select($detail | contains($line) | not)),
    ($said | select(.skipped == false) | text("stdout"; .stdout_cut), text("stderr"; .stderr_cut), text("result"; 0)),
    (.data.custom_stats_left_out // {} | to_entries[] | "[\(.key) is left out: \(.value) characters; write it to a file there to have it]")
  ' "$work/report.json"
exit "$status"
