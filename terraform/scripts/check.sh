#!/usr/bin/env bash
# Checks the Terraform code without an account: format, then per root and module init, validate and test.
# usage: check.sh [NAME…]        (NAME: modules/compute, environments/dev, …; default: all)
# One line per folder with its time; status 1 when one failed. Leaves the folders' own .terraform alone.
set -euo pipefail
# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

data_base=$(mktemp -d)
trap 'rm -rf "$data_base"' EXIT
# Tests never reach an account, not even by accident.
unset AWS_ENDPOINT_URL AWS_PROFILE AWS_SESSION_TOKEN TF_VAR_region
export AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none AWS_EC2_METADATA_DISABLED=true TF_CLI_ARGS=-no-color

names=("$@")
if [[ $# -eq 0 ]]; then
  mapfile -t names < <(cd "$terraform_root" && printf '%s\n' bootstrap bootstrap/identity environments/* modules/*)
fi
failed=0
# step NAME COMMAND…: runs it quietly; shows what it said when it fails.
step() {
  local name=$1 started=$SECONDS
  shift
  if "$@" >"$data_base/log" 2>&1; then
    printf 'ok    %-32s %3d s  %s\n' "$name" "$((SECONDS - started))" "$(grep -o '[0-9]* passed.*' "$data_base/log" || echo)"
  else
    cat "$data_base/log"
    printf 'FAIL  %-32s %3d s\n' "$name" "$((SECONDS - started))"
    failed=$((failed + 1))
  fi
}
# Every variable and output is in the folder's README, with the description it has in the code.
documented() {
  local folder=$terraform_root/$1 missing=0 text
  while read -r text; do
    if ! grep -qF -- "$text" "$folder/README.md"; then
      echo "$1/README.md lacks: $text"
      missing=1
    fi
  done < <(sed -nE 's/^(variable|output) "(.*)" \{/`\2`/p; s/^  description = "(.*)"$/\1/p' "$folder"/{variables,outputs}.tf)
  return "$missing"
}
check_folder() {
  local folder=$terraform_root/$1 lock=()
  if [[ -e $folder/.terraform.lock.hcl && $1 != modules/* ]]; then lock=(-lockfile=readonly); fi
  terraform_in "$folder" init -backend=false "${lock[@]}" "${plugin_arguments[@]}" \
    && terraform_in "$folder" validate \
    && if [[ -d $folder/tests ]]; then terraform_in "$folder" test; fi \
    && if [[ -e $folder/README.md ]]; then documented "$1"; fi
}
step format terraform fmt -check -recursive -diff "$terraform_root"
for name in "${names[@]}"; do
  if [[ ! -f $terraform_root/$name/versions.tf ]]; then fail 2 "no Terraform code in \`$name\`"; fi
  step "$name" check_folder "$name"
done
printf '%d passed, %d failed\n' "$((${#names[@]} + 1 - failed))" "$failed"
((failed == 0))
