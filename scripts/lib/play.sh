# shellcheck shell=bash
# Sourced by scripts that ask hosts something: the arguments they share, and a small play run by ssm-run-playbook.
# Sets: rest (the arguments that are not shared); then inventory (absolute), work (a folder that goes at the end).

# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

help() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; }

# shared_arguments ARGUMENT…: a script looks at its own ones in rest before it calls find_inventory.
shared_arguments() {
  environment=dev inventory='' rest=()
  while [ $# -gt 0 ]; do
    case $1 in
      --env | --inventory)
        [ -n "${2:-}" ] || fail "$usage" "$1 needs a value" "see $0 --help"
        if [ "$1" = --env ]; then environment=$2; else inventory=$2; fi
        shift
        ;;
      -h | --help) help && exit 0 ;;
      --) shift && rest+=("$@") && break ;;
      *) rest+=("$1") ;;
    esac
    shift
  done
  environment=$(environment_name "$environment") || exit
}

# Without --inventory: that of the environment's newest run that has one; a run that failed in plan or apply has none.
find_inventory() {
  local newest file
  if [ -n "$inventory" ]; then
    [ -s "$inventory" ] || fail "$usage" "there is no inventory \`$inventory\`" "name another with --inventory"
  else
    newest=$(readlink -f "$repository/.deploy/$environment/latest" || :)
    [ -z "$newest" ] || [ ! -s "$newest/inventory.json" ] || inventory=$newest/inventory.json
    # The folders are named by their time, so the last name is the newest.
    for file in "$repository/.deploy/$environment"/*/inventory.json; do
      [ -z "${inventory:-}" ] || [ "$inventory" != "$newest/inventory.json" ] || break
      [ ! -s "$file" ] || [ "$(basename "$(dirname "$file")")" = latest ] || inventory=$file
    done
    [ -n "$inventory" ] || fail "$usage" "no run of $environment in .deploy/$environment has an inventory" \
      "deploy first (scripts/deploy-environment.sh $environment), or name one with --inventory"
    [ "$inventory" = "$newest/inventory.json" ] ||
      say "the newest run (${newest##*/}) has no inventory; this is that of .deploy/$environment/$(basename "$(dirname "$inventory")")"
  fi
  inventory=$(realpath "$inventory")
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
}

# ask PATTERN TASKS [FLAG…]: runs tasks (JSON) on the hosts of a pattern; $work/report.json holds what they said. The tool's
# table is for whole playbooks, so it is not shown. What ends the script cancels the run on the hosts, too, as with the tool
# itself: the tool has a process group of its own, so that each signal reaches it once, and it is waited for.
ask() {
  mkdir -p "$work/ansible"
  jq -n --argjson tasks "$2" '[{hosts: "all", gather_facts: false, tasks: $tasks}]' >"$work/ansible/ask.yml"
  # What is asked is nothing for the journal, which may be what is asked for.
  printf '[defaults]\nno_target_syslog = True\n' >"$work/ansible/ansible.cfg"
  rm -f "$work/report.json"
  local tool status
  set -m
  (cd "$work" && exec ssm-run-playbook --quiet --inventory "$inventory" --limit "$1" --ansible-dir ansible \
    --report report.json "${@:3}" ask.yml >/dev/null </dev/null) &
  tool=$!
  set +m
  trap 'kill -INT "$tool" || :' INT
  trap 'kill -TERM "$tool" || :' TERM HUP
  # A signal ends a wait, not the tool.
  while status=0 && { wait "$tool" || status=$?; } && kill -0 "$tool" 2>/dev/null; do :; done
  trap - INT TERM HUP
  return "$status"
}
