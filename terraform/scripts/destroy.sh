#!/usr/bin/env bash
# Destroys everything in one environment's state; asks for the environment's name first. The state's bucket stays.
# usage: destroy.sh ENVIRONMENT [--yes]
set -euo pipefail
scripts=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=common.sh
source "$scripts/common.sh"

if [[ $# -lt 1 || $# -gt 2 || ${2:---yes} != --yes ]]; then
  fail 2 'an environment is missing, or too much was given' 'usage: destroy.sh ENVIRONMENT [--yes]'
fi
environment_of "$1"
if [[ ${2:-} != --yes ]]; then
  if [[ ! -t 0 ]]; then fail 2 'nobody is there to confirm' 'give --yes'; fi
  read -r -p "Type \`$environment\` to destroy everything in it: " answer
  if [[ $answer != "$environment" ]]; then fail 2 "nothing was destroyed: that was not \`$environment\`"; fi
fi
"$scripts/init.sh" "$environment"
let_finish=yes
terraform_in "$root" destroy -auto-approve -lock-timeout=60s || fail_terraform "cannot destroy all of $environment"
