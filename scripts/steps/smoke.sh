#!/usr/bin/env bash
# Proves the deployment from outside: the health document over HTTP, then a phone that registers and calls the echo
# extension. The phone's password comes from Secrets Manager and lives in this process's environment only.

# shellcheck source=../lib/step.sh
. "$(dirname "$0")/../lib/step.sh"

need inventory.json inventory
readonly user=1001 extension=600
status=0
smoke-test-http --inventory "$out/inventory.json" --limit nginx --path /health --expect-json status=up --wait 1m \
  --report "$reports/smoke-http.json" || status=$?

secret=$(jq -er '.all.vars.sip_users_secret_arn' "$out/inventory.json") ||
  fail "$usage" "the inventory names no sip_users_secret_arn" "run scripts/steps/inventory.sh --env $environment --out $out again"
region=$(jq -er '.all.vars.deploy_region' "$out/inventory.json")
SMOKE_SIP_PASSWORD=$(aws secretsmanager get-secret-value --region "$region" --secret-id "$secret" --query SecretString \
  --output text | jq -er --arg user "$user" '.[$user]') ||
  fail 5 "cannot read the password of phone $user" "the role that runs this needs secretsmanager:GetSecretValue on $secret"
export SMOKE_SIP_PASSWORD
[ "${GITHUB_ACTIONS:-}" != true ] || printf '::add-mask::%s\n' "$SMOKE_SIP_PASSWORD"

smoke-test-sip --inventory "$out/inventory.json" --limit sip --user "$user" --password-env SMOKE_SIP_PASSWORD \
  --call "$extension" --media 5s --wait 1m --report "$reports/smoke-sip.json" || { sip=$? && [ "$status" != 0 ] || status=$sip; }
exit "$status"
