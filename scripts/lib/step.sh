# shellcheck shell=bash
# Sourced by every script under scripts/steps/: the arguments they share, and the report of steps that are no tool.
# Sets: environment, out (absolute; the run's folder), reports.

# shellcheck source=../lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

environment='' out=''
while [ $# -gt 0 ]; do
  case $1 in
    --env | --out)
      [ -n "${2:-}" ] || fail "$usage" "$1 needs a value" "usage: $0 --env ENVIRONMENT [--out DIR]"
      if [ "$1" = --env ]; then environment=$2; else out=$2; fi
      shift 2
      ;;
    -h | --help) printf 'usage: %s --env ENVIRONMENT [--out DIR]\n%s\n' "$0" "$(sed -n '2,/^set/s/^# \{0,1\}//p' "$0")" && exit 0 ;;
    *) fail "$usage" "unknown argument \`$1\`" "usage: $0 --env ENVIRONMENT [--out DIR]" ;;
  esac
done
[ -n "$environment" ] || fail "$usage" "--env is missing" "usage: $0 --env ENVIRONMENT [--out DIR]"
environment=$(environment_name "$environment") || exit
# A plan can hold secrets.
umask 077
# Without --out the newest run is meant; the first one makes it.
[ -n "$out" ] || [ -e "$repository/.deploy/$environment/latest" ] || new_run_folder "$environment"
out=$(realpath -m "${out:-$repository/.deploy/$environment/latest}")
reports=$out/reports
mkdir -p "$out/reports" "$out/logs"
# The file of an earlier step, or an error that names that step.
need() {
  [ -s "$out/$1" ] || fail "$usage" "\`$1\` is missing or empty in $out" "run scripts/steps/$2.sh --env $environment --out $out first"
}

# stoppable COMMAND…: runs it, and passes on the first SIGINT or SIGTERM as SIGTERM: GitHub signals only a step's first
# process, and a second signal would make Terraform drop its state. Ends with 130 or 143 when that happened.
stoppable() {
  local child status=0 stopped=''
  "$@" & child=$!
  trap 'stopped=130; kill -TERM "$child" 2>/dev/null || :' INT
  trap 'stopped=143; kill -TERM "$child" 2>/dev/null || :' TERM
  while :; do
    status=0
    wait "$child" || status=$?
    kill -0 "$child" 2>/dev/null || break
  done
  trap - INT TERM
  return "${stopped:-$status}"
}

# step_report NAME STATUS TITLE [FILE]: the report of a step that is a script; FILE holds its subjects, a JSON array.
step_started=$(date +%s%3N)
step_report() {
  local now names='{"0":"success","1":"verdict","2":"usage","3":"empty","4":"timeout","5":"denied","6":"unavailable","130":"interrupted","143":"terminated"}'
  now=$(date +%s%3N)
  jq -n --arg tool "$1" --arg status "$2" --arg title "$3" --slurpfile subjects "${4:-/dev/null}" --argjson names "$names" \
    --arg environment "$environment" --argjson started "$step_started" --argjson now "$now" \
    'def rfc3339: . / 1000 | floor | todate;
     {schema: "calldata-foundation/report", version: 1, tool: $tool, tool_version: "script", project: "calldata-foundation",
      environment: $environment, started_at: ($started | rfc3339), ended_at: ($now | rfc3339), elapsed_ms: ($now - $started),
      outcome: ($names[$status] // "internal"), title: $title, subjects: ($subjects[0] // [])}' >"$reports/$1.json"
}
