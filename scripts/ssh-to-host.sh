#!/usr/bin/env bash
# Opens a shell on a host: a session of Systems Manager. No SSH, no open port.
#
#   scripts/ssh-to-host.sh [--env ENVIRONMENT | --inventory FILE] HOST
#
# HOST is a name of the inventory, which is that of the environment's newest run (dev). It needs the AWS CLI with its
# session-manager-plugin. In the rehearsal, which has no sessions, it is a root shell by `local-cloud exec`.
set -euo pipefail
# shellcheck source=lib/play.sh
. "$(dirname "$(readlink -f "$0")")/lib/play.sh"

shared_arguments "$@"
host=${rest[0]:-}
[ "${#rest[@]}" = 1 ] && [ "${host#-}" = "$host" ] || fail "$usage" "one HOST, please" "see $0 --help"
find_inventory
hosts=$(jq '[.. | objects | .hosts? // empty | objects | to_entries[]]' "$inventory")
id=$(jq -r --arg host "$host" '[.[] | select(.key == $host).value.instance_id? // empty] | first // ""' <<<"$hosts")
[ -n "$id" ] || fail "$usage" "no host \`$host\` with an instance ID in $inventory" \
  "its hosts: $(jq -r '[.[].key] | unique | join(", ")' <<<"$hosts")"
region=$(jq -r '[.. | objects | .deploy_region? // empty] | first // ""' "$inventory")
asked=$(aws ssm get-connection-status --target "$id" ${region:+--region "$region"} --query Status --output text 2>&1) || :
case $asked in
  *NotImplemented*)
    say "this cloud has no sessions: a root shell by local-cloud exec instead"
    exec local-cloud exec "$id" -- bash -l
    ;;
  notconnected)
    # shellcheck disable=SC2154
    fail "$unavailable" "the agent of \`$host\` ($id) is not connected" \
      "is it running, and does its role allow AmazonSSMManagedInstanceCore? scripts/steps/wait.sh waits for it"
    ;;
  connected) ;;
  *[Cc]redentials* | *AccessDenied* | *ExpiredToken* | *UnrecognizedClient*)
    # shellcheck disable=SC2154
    fail "$denied" "${asked##*$'\n'}" "aws sts get-caller-identity says who you are"
    ;;
  *) fail "$unavailable" "AWS does not say whether \`$host\` can be reached: ${asked##*$'\n'}" "is AWS_ENDPOINT_URL right?" ;;
esac
command -v session-manager-plugin >/dev/null || fail "$usage" "there is no session-manager-plugin" \
  "https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-install-plugin.html"
exec aws ssm start-session --target "$id" ${region:+--region "$region"}
