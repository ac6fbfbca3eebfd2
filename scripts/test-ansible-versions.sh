#!/usr/bin/env bash
# Runs what ssm-run-playbook does on a host with every ansible-core that it supports, each in a virtual environment of
# its own that is kept in the user's cache. Arguments: versions, by default all.
set -euo pipefail
cd "$(dirname "$0")/.."

cache="${XDG_CACHE_HOME:-$HOME/.cache}/calldata-foundation"
if [ $# -eq 0 ]; then
  set -- 2.14 2.15 2.16 2.17 2.18 2.19
fi
for version in "$@"; do
  venv="$cache/ansible-core-$version"
  if [ ! -x "$venv/bin/ansible-playbook" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet "ansible-core==$version.*"
  fi
  echo "ansible-core $version"
  # The same Ansible for the tests, which find it by DEPLOY_VENV, and for what they start themselves.
  DEPLOY_VENV="$venv" PATH="$venv/bin:$PATH" \
    cargo test --quiet --package ssm-run-playbook --test it -- events:: reboots:: vault_files modules_share a_module_ends failures_that inner::
done
