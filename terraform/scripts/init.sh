#!/usr/bin/env bash
# Prepares one environment: provider, modules, and the backend, which is made when the account has none yet.
# usage: init.sh ENVIRONMENT [--backend-config FILE]
#   TF_STATE_BUCKET, TF_STATE_LOCK_TABLE   other names than <project>-tfstate-<account>-<region>, <project>-tfstate-lock
#   TERRAFORM_PROVIDER_MIRROR              a folder with the provider, where the registry is out of reach
set -euo pipefail
scripts=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=common.sh
source "$scripts/common.sh"

if [[ $# -ne 1 && ! ($# -eq 3 && $2 == --backend-config) ]]; then
  fail 2 'an environment is missing, or too much was given' 'usage: init.sh ENVIRONMENT [--backend-config FILE]'
fi
environment_of "$1"
backend=${3:-$root/.terraform/backend.hcl}
if [[ $# -eq 3 && ! -s $backend ]]; then fail 2 "no backend configuration in \`$backend\`" 'plan again'; fi

if [[ $# -eq 1 ]]; then
  mkdir -p "$(dirname "$backend")"
  bucket=$("$scripts/bootstrap.sh" --name)
  cat >"$backend" <<EOF
bucket         = "$bucket"
key            = "$environment/terraform.tfstate"
region         = "$region"
dynamodb_table = "${TF_STATE_LOCK_TABLE:-$project-tfstate-lock}"
EOF
fi

# `-reconfigure`: the states of two accounts have nothing to do with each other, so none is ever copied.
initialise() {
  terraform_in "$root" init -reconfigure -lockfile=readonly -backend-config="$(realpath "$backend")" "${plugin_arguments[@]}" >"$log" 2>&1
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
bucket=$(sed -n 's/^bucket *= "\(.*\)"$/\1/p' "$backend")
if [[ -e $terraform_root/bootstrap/$bucket.tfstate ]]; then "$scripts/bootstrap.sh"; fi # cut short the last time
if ! initialise; then
  case $terraform_errors in
    *NoSuchBucket* | *'S3 bucket'*'does not exist'*) "$scripts/bootstrap.sh" ;;
  esac
  initialise || { cat "$log" >&2 && fail_terraform "cannot initialise $environment"; }
fi
echo "$environment: Terraform is ready, its state is in $bucket" >&2
