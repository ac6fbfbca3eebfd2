#!/usr/bin/env bash
# Proves the deployment from outside: the health document over HTTP, then a phone that registers and calls the echo
# extension. The phone's password comes from Secrets Manager, lives in this process's environment only and is never printed.
set -euo pipefail
# shellcheck source=../lib/step.sh
. "$(dirname "$(readlink -f "$0")")/../lib/step.sh"

need inventory.json inventory
readonly extension=600
http=0 sip=0
stoppable smoke-test-http --inventory "$out/inventory.json" --limit nginx --path /health --expect-json status=up --wait 1m \
  --report "$reports/smoke-http.json" || http=$?
# Stopped is stopped; after a bad answer the call is worth knowing too.
[ "$http" -lt 128 ] || exit "$http"

# The verdict counts, whatever keeps the call from being tried.
trap 'status=$?; [ "$http" = 0 ] || status=$http; exit "$status"' EXIT
# The first phone by name.
read -r user secret < <(jq -er '.all.vars.sip_user_secret_arns | to_entries | min_by(.key) | "\(.key) \(.value)"' "$out/inventory.json") ||
  fail "$usage" "the inventory names no sip_user_secret_arns" "run scripts/steps/inventory.sh --env $environment --out $out again"
region=$(jq -er '.all.vars.deploy_region' "$out/inventory.json")
phone=$(aws secretsmanager get-secret-value --region "$region" --secret-id "$secret" --query SecretString --output text) ||
  fail 5 "cannot read the phone's password" "are credentials and endpoint set, and secretsmanager:GetSecretValue allowed on $secret?"
SMOKE_SIP_PASSWORD=$(jq -er .password <<<"$phone") ||
  fail "$usage" "the secret $secret holds no password" "it is a JSON object with username and password; terraform/modules/foundation-asterisk makes it"
export SMOKE_SIP_PASSWORD

stoppable smoke-test-sip --inventory "$out/inventory.json" --limit sip --user "$user" --password-env SMOKE_SIP_PASSWORD \
  --call "$extension" --media 5s --wait 1m --report "$reports/smoke-sip.json" || sip=$?
[ "$sip" -lt 128 ] || http=0
exit "$sip"
