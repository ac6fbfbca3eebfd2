#!/usr/bin/env bash
# Deploys an environment: plan, apply that plan, inventory, wait, configure, smoke, clean, notify; ends with a summary.
#
#   scripts/deploy-environment.sh ENVIRONMENT [--local] [--destroy] [--out DIR]
#
#   --local     in the rehearsal cloud on this machine, which is set up first
#   --destroy   take the environment down instead; with --local the rehearsal cloud goes too
#   --out DIR   where the run's files go (default: .deploy/ENVIRONMENT/TIME, with a link `latest`)

# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source=lib/setup.sh
. "$repository/scripts/lib/setup.sh"
# shellcheck source=lib/summary.sh
. "$repository/scripts/lib/summary.sh"

environment='' mode=aws destroy=no out=''
while [ $# -gt 0 ]; do
  case $1 in
    --local) mode=local && shift ;;
    --destroy) destroy=yes && shift ;;
    --out) out=${2:?--out needs a folder} && shift 2 ;;
    -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" && exit 0 ;;
    -*) fail "$usage" "unknown flag \`$1\`" "see $0 --help" ;;
    *) [ -z "$environment" ] || fail "$usage" "one environment at a time" "see $0 --help"; environment=$1 && shift ;;
  esac
done
[ -n "$environment" ] || fail "$usage" "which environment?" "see $0 --help"
environment=$(environment_name "$environment")

# What the engine started by this run must not outlive: a failure before the rehearsal cloud runs.
cloud_runs=no
# shellcheck disable=SC2329
leave() {
  local status=$?
  [ "$mode" = aws ] || [ "$cloud_runs" = yes ] || stop_docker_engine
  exit "$status"
}
trap leave EXIT
trap 'interrupted=130' INT
trap 'interrupted=143' TERM
interrupted=''

if [ "$mode" = local ]; then
  preflight
  packages ca-certificates debootstrap iproute2 jq nftables
  docker_engine
fi
terraform_tool
python_tools "$venv" "$repository/scripts/requirements.txt"
rust_tools
if [ "$mode" = local ]; then
  # The one difference from AWS: whose API it is, and one file of package sources.
  exports=$(local-cloud up)
  eval "$exports"
  cloud_runs=yes
fi
if [ "$destroy" = yes ]; then
  if [ "$mode" = local ]; then
    "$repository/terraform/scripts/destroy.sh" "$environment" --yes
    local-cloud down
    cloud_runs=no
  else
    # Asks for the environment's name to be typed.
    "$repository/terraform/scripts/destroy.sh" "$environment"
  fi
  say "$environment is gone"
  exit 0
fi

[ -n "$out" ] || out=$repository/.deploy/$environment/$(date -u +%Y%m%dT%H%M%SZ)
mkdir -p "$out"
[ "$(dirname "$out")" != "$repository/.deploy/$environment" ] || ln -sfn "$(basename "$out")" "$(dirname "$out")/latest"
: >"$out/steps.jsonl"
[ "$mode" = aws ] || cp "$repository/ansible/rehearsal.yml" "$out/extra-vars.yml"
status=0
for step in plan apply inventory wait configure smoke clean notify; do
  # A failed step ends the chain; people are told all the same.
  [ "$status" = 0 ] || [ "$step" = notify ] || continue
  step_status=0
  run_step "$step" || step_status=$?
  [ "$status" != 0 ] || status=$step_status
  [ -z "$interrupted" ] || { status=$interrupted && break; }
done
write_summary "$status"
exit "$status"
