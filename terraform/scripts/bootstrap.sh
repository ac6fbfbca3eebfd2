#!/usr/bin/env bash
# Makes the bucket and the table for Terraform's states in this account and region, or brings them up to date.
# Their own state lies in that bucket. `--name` only prints the bucket's name. init.sh calls this when needed.
set -euo pipefail
# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

folder=$terraform_root/bootstrap
if [[ -n ${1:-} && $1 != --name ]]; then fail 2 "unknown argument \`$1\`" 'usage: bootstrap.sh [--name]'; fi

# The name holds the account: bucket names are unique in all of AWS. An access key belongs to one account for good,
# so what it answered is kept; other credentials are asked every time.
bucket=${TF_STATE_BUCKET:-}
if [[ -z $bucket ]]; then
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  known=$scratch/account
  if [[ -n ${AWS_ACCESS_KEY_ID:-} ]]; then
    known=$folder/identity/.terraform/account-$(sha256sum <<<"$AWS_ACCESS_KEY_ID ${AWS_ENDPOINT_URL:-}" | cut -c1-16)
  fi
  if [[ ! -s $known ]]; then
    terraform_in "$folder/identity" init -lockfile=readonly "${plugin_arguments[@]}" >"$scratch/log" \
      || { cat "$scratch/log" >&2 && fail_terraform 'cannot set up Terraform'; }
    terraform_in "$folder/identity" apply -auto-approve -state="$scratch/state" >"$scratch/log" \
      || fail_terraform 'cannot tell which account this is'
    terraform_in "$folder/identity" output -state="$scratch/state" -raw account_id >"$scratch/new"
    mkdir -p "$(dirname "$known")"
    mv "$scratch/new" "$known"
  fi
  bucket=$project-tfstate-$(<"$known")-$region
fi
if [[ ${1:-} == --name ]]; then echo "$bucket" && exit; fi

table=${TF_STATE_LOCK_TABLE:-$project-tfstate-lock}
variables=(-var "bucket_name=$bucket" -var "lock_table_name=$table")
# A bucket that demands TLS answers nobody at an endpoint that speaks plain HTTP.
if [[ ${AWS_ENDPOINT_URL_S3:-${AWS_ENDPOINT_URL:-}} == http://* ]]; then variables+=(-var require_tls=false); fi
backend=(-backend-config="bucket=$bucket" -backend-config="dynamodb_table=$table" -backend-config="region=$region"
  -backend-config=key=state-backend/terraform.tfstate)
local_state=$folder/$bucket.tfstate
override=$folder/backend_override.tf

# A local state is what a run left that was cut short between making the bucket and moving the state in.
if [[ ! -e $local_state ]] && terraform_in "$folder" init -reconfigure -lockfile=readonly \
  "${backend[@]}" "${plugin_arguments[@]}" >&2 2>/dev/null; then
  terraform_in "$folder" apply -auto-approve -lock-timeout=60s "${variables[@]}" >&2 \
    || fail_terraform 'cannot bring the state backend up to date'
  exit
fi
echo "making bucket $bucket and table $table for Terraform's states" >&2
trap 'rm -rf "$override" "${scratch:-}"' EXIT
printf 'terraform {\n  backend "local" {\n    path = "%s"\n  }\n}\n' "$local_state" >"$override"
terraform_in "$folder" init -reconfigure -lockfile=readonly "${plugin_arguments[@]}" >&2 \
  || fail_terraform 'cannot set up Terraform'
terraform_in "$folder" apply -auto-approve "${variables[@]}" >&2 || fail_terraform 'cannot make the state backend'
rm -f "$override"
terraform_in "$folder" init -migrate-state -force-copy -lockfile=readonly "${backend[@]}" "${plugin_arguments[@]}" >&2 \
  || fail_terraform 'cannot move the state of the state backend into its bucket'
rm -f "$local_state" "$local_state.backup"
