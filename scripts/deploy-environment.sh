#!/usr/bin/env bash
# Deploys an environment: plan, apply that plan, inventory, wait, configure, smoke, clean, notify; ends with a summary.
#
#   scripts/deploy-environment.sh ENVIRONMENT [--local] [--destroy] [--out DIR]
#
#   --local     in the rehearsal cloud on this machine, which is set up first
#   --destroy   take the environment down instead; with --local the rehearsal cloud goes too
#   --out DIR   where the run's files go (default: .deploy/ENVIRONMENT/TIME, with a link `latest`)
set -euo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"
# shellcheck source=lib/setup.sh
. "$repository/scripts/lib/setup.sh"
# shellcheck source=lib/claim.sh
. "$repository/scripts/lib/claim.sh"
# shellcheck source=lib/summary.sh
. "$repository/scripts/lib/summary.sh"

environment='' mode=aws destroy=no out=''
while [ $# -gt 0 ]; do
  case $1 in
    --local) mode=local && shift ;;
    --destroy) destroy=yes && shift ;;
    --out) [ -n "${2:-}" ] || fail "$usage" "--out needs a folder" "see $0 --help"; out=$2 && shift 2 ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && exit 0 ;;
    -*) fail "$usage" "unknown flag \`$1\`" "see $0 --help" ;;
    *) [ -z "$environment" ] || fail "$usage" "one environment at a time" "see $0 --help"; environment=$1 && shift ;;
  esac
done
[ -n "$environment" ] || fail "$usage" "which environment?" "see $0 --help"
environment=$(environment_name "$environment") || exit
# Before anything is installed or built: two runs cannot work on one environment.
what="scripts/deploy-environment.sh $environment"
[ "$mode" = aws ] || what+=' --local'
[ "$destroy" = no ] || what+=' --destroy'
claim_run "$environment" "$what"

# What the engine started by this run must not outlive: a failure before the rehearsal cloud runs.
cloud_runs=no
# shellcheck disable=SC2329
leave() {
  local status=$?
  [ "$mode" = aws ] || [ "$cloud_runs" = yes ] || stop_docker_engine
  exit "$status"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ "$mode" = local ]; then
  preflight
  packages debian-archive-keyring debootstrap gpgv iproute2 nftables util-linux
  docker_engine
fi
packages ca-certificates jq
terraform_tool
python_tools "$venv" "$repository/scripts/requirements.txt"
region=${AWS_REGION:-${AWS_DEFAULT_REGION:-us-east-1}}
[ "$mode" = local ] || refuse_locked_state "$environment" "$region"
rust_tools
if [ "$mode" = local ] && [ "$destroy" = yes ] && ! local-cloud status >/dev/null 2>&1; then
  # Without the cloud there is nothing to destroy but what a crash left.
  local-cloud down
  say "$environment is gone"
  exit 0
fi
if [ "$mode" = local ]; then
  # The one difference from AWS: whose API it is, and one file of package sources.
  exports=$(local-cloud up) || exit
  eval "$exports"
  cloud_runs=yes
  refuse_locked_state "$environment" "${AWS_REGION:-us-east-1}"
fi
[ "$mode" = local ] || [ -z "${AWS_ENDPOINT_URL:-}" ] || say "this goes to $AWS_ENDPOINT_URL (AWS_ENDPOINT_URL is set), not to AWS"
if [ "$destroy" = yes ]; then
  status=0
  if [ "$mode" = local ]; then
    "$repository/terraform/scripts/destroy.sh" "$environment" --yes || status=$?
    local-cloud down && cloud_runs=no
  else
    # Asks for the environment's name to be typed.
    "$repository/terraform/scripts/destroy.sh" "$environment" || status=$?
  fi
  [ "$status" != 0 ] || say "$environment is gone"
  exit "$status"
fi

# A plan can hold secrets.
umask 077
if [ -z "$out" ]; then new_run_folder "$environment"; fi
mkdir -p "$out"
out=$(cd "$out" && pwd)
claim_folder "$environment" "$out"
# What an earlier run left in a folder that is used again would be told as this run's.
rm -rf "${out:?}"/{reports,logs,inventory.json,extra-vars.yml,notify.json,steps.jsonl,summary.md}
[ "$mode" = aws ] || cp "$repository/ansible/rehearsal.yml" "$out/extra-vars.yml"
: >"$out/steps.jsonl"
# From here on a signal ends the step that runs, and the summary says so.
interrupted='' status=0
trap 'interrupted=130' INT
trap 'interrupted=143' TERM
for step in plan apply inventory wait configure smoke clean notify; do
  # A failed step ends the chain; people are told all the same.
  [ "$status" = 0 ] || [ "$step" = notify ] || continue
  step_status=0
  run_step "$step" || step_status=$?
  [ "$status" != 0 ] || status=$step_status
  [ -z "$interrupted" ] || { status=$interrupted && break; }
done
write_summary "$status" || say "the summary could not be written"
exit "$status"
