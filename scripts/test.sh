#!/usr/bin/env bash
# Runs every test and check, the rehearsal of a whole deployment included; one line each, then `N passed, N failed`.
#
#   scripts/test.sh           everything; sets up what it needs
#   scripts/test.sh --quick   the inner loop: no rehearsal, no cargo-deny

# shellcheck source=lib/common.sh
. "$(dirname "$0")/lib/common.sh"
# shellcheck source=lib/setup.sh
. "$repository/scripts/lib/setup.sh"
# shellcheck source=lib/checks.sh
. "$repository/scripts/lib/checks.sh"

quick=no
case ${1:-} in
  '') ;;
  --quick) quick=yes ;;
  -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "$0" && exit 0 ;;
  *) fail "$usage" "unknown argument \`$1\`" "see $0 --help" ;;
esac

preflight
packages ca-certificates curl debootstrap git iproute2 jq nftables unzip
terraform_tool
python_tools "$venv" "$repository/scripts/requirements.txt"
python_tools "$DEPLOY_VENV" "$repository/scripts/requirements-checks.txt"
rust_tools

cd "$repository"
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
check rustfmt cargo fmt --all --check
check clippy cargo clippy --locked --workspace --all-targets --features pipeline-tests/rehearsal -- -D warnings
check unit-and-tool-tests cargo test --locked --workspace
check shellcheck check_shell
check yamllint yamllint --strict .
check actionlint actionlint
check zizmor zizmor --offline --no-progress --strict-collection .
check action-schema check-jsonschema --builtin-schema vendor.github-actions action.yml
check ansible-lint check_ansible
check ansible-role-readmes ansible/scripts/role-readmes.py --check
check terraform check_terraform
if [ "$quick" = no ]; then
  cargo_deny
  check cargo-deny cargo-deny --workspace check bans licenses sources
  docker_engine
  check rehearsal cargo test --locked -p pipeline-tests --features rehearsal --test rehearsal -- --nocapture
  stop_docker_engine
fi
conclude
