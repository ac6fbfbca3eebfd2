# shellcheck shell=bash
# Sourced by setup.sh: Terraform, and where its provider comes from.

# Terraform, and where its provider comes from when the public registry cannot be reached.
terraform_tool() {
  local version=1.11.4 archive
  if ! command -v terraform >/dev/null; then
    packages ca-certificates curl unzip
    archive=terraform_${version}_linux_$(dpkg --print-architecture).zip
    mkdir -p "$cache/bin"
    quietly "$state/logs/terraform.log" "installing Terraform $version (or put Terraform >= 1.11 on PATH yourself)" \
      download_terraform "$version" "$archive"
  fi
  provider_mirror
}

# download_terraform VERSION ARCHIVE: from HashiCorp's release server, its checksum verified, into the cache folder.
download_terraform() {
  local folder status=0 base=https://releases.hashicorp.com/terraform/$1 sums=terraform_$1_SHA256SUMS
  folder=$(mktemp -d)
  curl --connect-timeout 15 -sSf --output-dir "$folder" -O "$base/$2" -O "$base/$sums" &&
    (cd "$folder" && grep " $2\$" "$sums" | sha256sum -c - && unzip -o "$2" terraform -d "$cache/bin") || status=$?
  rm -rf "$folder"
  return "$status"
}

# Sets TERRAFORM_PROVIDER_MIRROR when the registry named in the lock file does not answer: Terraform's implied folders
# first, then a shallow search. Says what it found.
provider_mirror() {
  local registry found
  [ -z "${TERRAFORM_PROVIDER_MIRROR:-}" ] || return 0
  packages ca-certificates curl
  registry=$(sed -n 's#^provider "\([^/]*\)/.*#\1#p' "$repository/terraform/environments/dev/.terraform.lock.hcl" | head -n 1)
  rm -f "$state/provider-mirror"
  curl -sSf --max-time 5 -o /dev/null "https://$registry/.well-known/terraform.json" 2>/dev/null && return 0
  # Folders that do not exist are no fault here; one that is a link is followed, as Terraform does.
  found=$(find -H "$HOME/.terraform.d/plugins" "${XDG_DATA_HOME:-$HOME/.local/share}/terraform/plugins" \
    /usr/local/share/terraform/plugins /usr/share/terraform/plugins -type d -path "*/$registry/hashicorp/aws" -print -quit 2>/dev/null) || :
  [ -n "$found" ] || found=$(find / -xdev -maxdepth 6 -type d -path "*/$registry/hashicorp/aws" -print -quit 2>/dev/null) || :
  [ -n "$found" ] || fail "$unavailable" "the Terraform registry does not answer and no provider mirror was found" \
    "set TERRAFORM_PROVIDER_MIRROR to a folder made by \`terraform providers mirror\`"
  export TERRAFORM_PROVIDER_MIRROR=${found%/"$registry"/hashicorp/aws}
  # For steps that are run by hand later.
  mkdir -p "$state"
  printf '%s\n' "$TERRAFORM_PROVIDER_MIRROR" >"$state/provider-mirror"
  say "the Terraform registry does not answer: providers come from $TERRAFORM_PROVIDER_MIRROR"
}
