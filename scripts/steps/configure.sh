#!/usr/bin/env bash
# Runs the whole playbook on every host through Systems Manager. DEPLOY_EXTRA_VARS may name one more file of Ansible
# variables; the rehearsal's names package sources.

# shellcheck source=../lib/step.sh
. "$(dirname "$0")/../lib/step.sh"

need inventory.json inventory
exec ssm-run-playbook --inventory "$out/inventory.json" --ansible-dir "$repository/ansible" \
  ${DEPLOY_EXTRA_VARS:+--extra-vars "@$DEPLOY_EXTRA_VARS"} \
  --timeout "${DEPLOY_CONFIGURE_TIMEOUT:-45m}" --log-dir "$out/logs/configure" --report "$reports/configure.json" \
  "${DEPLOY_PLAYBOOK:-playbooks/site.yml}"
