#!/usr/bin/env bash
# Applies exactly the plan in DIR against the state that it was made for, and writes outputs.json beside it.
# usage: apply.sh DIR | apply.sh ENVIRONMENT [--out DIR]        (an environment alone: its latest plan)
set -euo pipefail
scripts=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=common.sh
source "$scripts/common.sh"

usage='usage: apply.sh DIR | apply.sh ENVIRONMENT [--out DIR]'
case $# in
  1) if [[ $1 == */* || -d $1 ]]; then wanted=$1; else environment_of "$1"; fi ;;
  3) environment_of "$1" && wanted=$3 && [[ $2 == --out ]] || fail 2 "unknown argument \`$2\`" "$usage" ;;
  *) fail 2 'a folder with a plan is missing' "$usage" ;;
esac
wanted=${wanted:-$repository_root/.deploy/$environment/latest}
if [[ ! -s $wanted/tfplan || ! -s $wanted/backend.hcl ]]; then
  fail 2 "no plan in \`$wanted\`" "terraform/scripts/plan.sh ${environment:-ENVIRONMENT} --out $wanted"
fi
out=$(cd "$wanted" && pwd)
planned=$(sed -n 's,^key *= "\([a-z]*\)/.*,\1,p' "$out/backend.hcl")
if [[ ${environment:-$planned} != "$planned" ]]; then
  fail 2 "the plan in \`$wanted\` is of $planned, not of $environment"
fi
environment_of "$planned"

"$scripts/init.sh" "$environment" --backend-config "$out/backend.hcl"
let_finish=yes
if ! terraform_in "$root" apply -lock-timeout=60s "$out/tfplan"; then
  case $terraform_errors in
    *'Saved plan is stale'* | *'Saved plan does not match'*)
      fail 2 "the plan in \`$wanted\` no longer fits the state of $environment: something was applied since" \
        "plan again and look at it: terraform/scripts/plan.sh $environment --out $wanted" ;;
  esac
  fail_terraform "cannot apply the plan of $environment"
fi
let_finish=''
terraform_in "$root" output -json >"$out/outputs.json.new"
mv "$out/outputs.json.new" "$out/outputs.json"
echo "$environment: applied; the outputs are $out/outputs.json" >&2
