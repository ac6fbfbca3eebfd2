# shellcheck shell=bash
# Sourced by scripts/ and terraform/scripts/: where Terraform's provider comes from. One rule for both.
# Uses: say, fail (of the script that sources this).

# Sets TERRAFORM_PROVIDER_MIRROR when the registry named in the lock file does not answer: Terraform's implied folders
# first, then a shallow search. Says what it found. What was found is kept for scripts that are run later by hand; with
# `anew` the registry is asked again.
provider_mirror() {
  local repository registry found kept state=${XDG_STATE_HOME:-$HOME/.local/state}/calldata-foundation
  [ -z "${TERRAFORM_PROVIDER_MIRROR:-}" ] || return 0
  # A script that this one calls need not look again.
  [ -z "${PROVIDER_FROM_REGISTRY:-}" ] || return 0
  repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
  registry=$(sed -n 's#^provider "\([^/]*\)/.*#\1#p' "$repository/terraform/environments/dev/.terraform.lock.hcl" | head -n 1)
  kept=$(cat "$state/provider-mirror" 2>/dev/null) || kept=''
  if [ "${1:-}" != anew ] && [ -n "$kept" ] && [ -d "$kept/$registry/hashicorp/aws" ]; then
    export TERRAFORM_PROVIDER_MIRROR=$kept
    return 0
  fi
  rm -f "$state/provider-mirror"
  if curl -sSf --max-time 5 -o /dev/null "https://$registry/.well-known/terraform.json" 2>/dev/null; then
    export PROVIDER_FROM_REGISTRY=yes
    return 0
  fi
  # Folders that do not exist are no fault here; one that is a link is followed, as Terraform does.
  found=$(find -H "$HOME/.terraform.d/plugins" "${XDG_DATA_HOME:-$HOME/.local/share}/terraform/plugins" \
    /usr/local/share/terraform/plugins /usr/share/terraform/plugins -type d -path "*/$registry/hashicorp/aws" -print -quit 2>/dev/null) || :
  [ -n "$found" ] || found=$(find / -xdev -maxdepth 6 -type d -path "*/$registry/hashicorp/aws" -print -quit 2>/dev/null) || :
  [ -n "$found" ] || fail 6 "the Terraform registry does not answer and no provider mirror was found" \
    "set TERRAFORM_PROVIDER_MIRROR to a folder made by \`terraform providers mirror\`"
  export TERRAFORM_PROVIDER_MIRROR=${found%/"$registry"/hashicorp/aws}
  mkdir -p "$state"
  printf '%s\n' "$TERRAFORM_PROVIDER_MIRROR" >"$state/provider-mirror"
  say "the Terraform registry does not answer: providers come from $TERRAFORM_PROVIDER_MIRROR"
}
