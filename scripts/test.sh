#!/usr/bin/env bash
# Runs every test and check, the rehearsal of a whole deployment included; one line each, then `N passed, N failed`.
#
#   scripts/test.sh           everything; sets up what it needs
#   scripts/test.sh --quick   the inner loop: no rehearsal, no cargo-deny
set -euo pipefail
# shellcheck source=lib/common.sh
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"
# shellcheck source=lib/setup.sh
. "$repository/scripts/lib/setup.sh"
# shellcheck source=lib/checks.sh
. "$repository/scripts/lib/checks.sh"

quick=no
case ${1:-} in
  '') ;;
  --quick) quick=yes ;;
  -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && exit 0 ;;
  *) fail "$usage" "unknown argument \`$1\`" "see $0 --help" ;;
esac

logs=$(mktemp -d)
rehearses=no
# Also after Ctrl-C: what the rehearsal made goes, and the engine that was started for it.
# shellcheck disable=SC2329
leave() {
  local status=$?
  [ ! -f "$logs/beside" ] || kill -TERM -- "-$(cat "$logs/beside")" 2>/dev/null || :
  [ "$rehearses" = no ] || { local-cloud down >/dev/null || :; }
  stop_docker_engine
  rm -rf "$logs"
  exit "$status"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

preflight
packages build-essential ca-certificates curl git jq unzip
if [ "$quick" = no ]; then
  # chromium looks at the rehearsal cloud's page: 124 MB to load, 414 MB on disk.
  packages chromium debian-archive-keyring debootstrap gpgv iproute2 nftables util-linux
  docker_engine
fi
terraform_tool
python_tools "$venv" "$repository/scripts/requirements.txt"
python_tools "$DEPLOY_VENV" "$repository/scripts/requirements-checks.txt"
rust_tools
if [ "$quick" = no ] && local-cloud status >/dev/null 2>&1; then
  fail "$usage" "a rehearsal runs, and the tests would take it down" "local-cloud down, or scripts/test.sh --quick"
fi

cd "$repository"
check rustfmt cargo fmt --all --check
check clippy cargo clippy --locked --workspace --all-targets --features pipeline-tests/rehearsal,local-cloud/hosts,tf-to-inventory/cloud -- -D warnings
check unit-and-tool-tests cargo test --locked --workspace --no-fail-fast
check shellcheck check_shell
check yamllint yamllint --strict .
check actionlint actionlint
check zizmor zizmor --offline --no-progress --strict-collection .
check action-schema check-jsonschema --builtin-schema vendor.github-actions action.yml
check ansible-lint check_ansible
check ansible-role-readmes ansible/scripts/role-readmes.py --check
check terraform check_terraform
if [ "$quick" = no ]; then
  check cargo-deny cargo_deny check bans licenses sources
  check_advisories
  check rehearsal-cloud cargo test --locked -p local-cloud --features hosts --test hosts -- --nocapture
  # Both wait most of their time, for boots and for time limits.
  begin wait-cloud cargo test --locked -p pipeline-tests --features rehearsal --test wait -- --nocapture
  check playbook-cloud cargo test --locked -p pipeline-tests --features rehearsal --test playbook -- --nocapture
  finish wait-cloud
  check inventory-cloud cargo test --locked -p tf-to-inventory --features cloud --test cloud
  rehearses=yes
  check rehearsal cargo test --locked -p pipeline-tests --features rehearsal --test rehearsal -- --nocapture
  # The time of each stage and step is worth reading also when all went well.
  grep -E '^(\[ *[0-9]+ s\]|           )' "$logs/rehearsal.log" || :
fi
conclude
