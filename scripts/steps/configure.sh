#!/usr/bin/env bash
# Runs the whole playbook on every host through Systems Manager. An extra-vars.yml in the run's folder holds more Ansible
# variables; the rehearsal's names package sources and nothing else.
set -euo pipefail
# shellcheck source=../lib/step.sh
. "$(dirname "$(readlink -f "$0")")/../lib/step.sh"

need inventory.json inventory
extra=()
[ ! -s "$out/extra-vars.yml" ] || extra=(--extra-vars "@$out/extra-vars.yml")
exec ssm-run-playbook --inventory "$out/inventory.json" --ansible-dir "$repository/ansible" \
  "${extra[@]}" --timeout "${DEPLOY_CONFIGURE_TIMEOUT:-45m}" --log-dir "$out/logs/configure" --report "$reports/configure.json" \
  "${DEPLOY_PLAYBOOK:-playbooks/site.yml}"
